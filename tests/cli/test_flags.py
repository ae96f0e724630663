import re
from pathlib import Path

import pytest

import fcn_deploy
from fcn_deploy.cli.app import _flags, with_flags

PACKAGE = Path(fcn_deploy.__file__).parent


@pytest.mark.parametrize(
    ("parameter", "flag"),
    [
        ("`calib_data`", "--calib-data"),
        ('`io="tensor"`', "--io tensor"),
        ("`size_divisor=8`", "--size-divisor 8"),
        ('`precision="int8"`', "--int8"),
        ("`winograd=False`", "--no-winograd"),
        ("`bias_correction=False`", "--no-bias-correction"),
        ("`simplify=False`", "--no-simplify"),
        ("`random_calibration=True`", "--random-calibration"),
        ("`allow_host_code`", "--allow-host-code"),
        ("`output`", "--output"),
        ("`model=nets:UNet`", "--model nets:UNet"),
    ],
)
def test_a_parameter_becomes_the_flag_of_the_command_line(parameter, flag):
    assert with_flags(f"bad; fix: add {parameter}, please") == f"bad; fix: add {flag}, please"


def test_what_is_no_option_stays_as_it_is():
    for text in ("no `picture` here", "`spec=spec`", "plain", "a ` alone"):
        assert with_flags(text) == text


def test_every_flag_is_found():
    assert len(_flags()) > 60


def test_the_library_names_parameters_and_no_flags():
    """Complete commands to copy, which begin with fcn-deploy or pip, may have flags."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if "cli" in file.relative_to(PACKAGE).parts:
            continue
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if re.search(r"(?<![-\w])--[a-z]", line) and not re.search(r"fcn-deploy \w|pip install|words|#", line):
                found.append(f"{file.relative_to(PACKAGE)}:{number}: {line.strip()}")
    assert not found
