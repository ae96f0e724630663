"""The versions that the project's files name agree with each other."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from fcn_deploy import __version__
from tests.support.extras import PROJECT, requirements

ROOT = Path(__file__).parents[1]
PYTHONS = [
    text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.fullmatch(r"Programming Language .* 3\.\d+", text)
]
NOT_TESTED_OLDEST = {"torch"}  # tools/oldest.txt says why


def pins(file):
    """The requirements of a file, by the names of the packages."""
    found = {}
    for line in (ROOT / file).read_text().splitlines():
        if text := line.partition("#")[0].strip():
            pin = Requirement(text)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def version(pin):
    (specifier,) = pin.specifier
    assert specifier.operator == "==", pin
    return Version(specifier.version)


def lower_bounds():
    bounds = {}
    for requirement in requirements("host", "cpu", "video"):
        (specifier,) = requirement.specifier
        assert specifier.operator == ">=", requirement
        bounds[canonicalize_name(requirement.name)] = Version(specifier.version)
    return bounds


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds_of_the_project():
    bounds = lower_bounds()
    assert set(bounds) >= NOT_TESTED_OLDEST
    oldest = {name: version(pin) for name, (pin,) in pins("tools/oldest.txt").items()}
    wanted = {name: bound for name, bound in bounds.items() if name not in NOT_TESTED_OLDEST}
    assert {name: oldest.get(name) for name in wanted} == wanted


def test_numpy_alone_is_needed_by_all_and_the_host_has_the_command_line():
    assert {requirement.name for requirement in requirements()} == {"numpy"}
    command_line = {requirement.name for requirement in requirements("cli")}
    assert command_line == {"numpy", "click", "pillow", "rich"}
    assert command_line < {requirement.name for requirement in requirements("host")}
    assert {requirement.name for requirement in requirements("cpu")} == {"numpy", "onnxruntime"}


def test_the_changelog_begins_with_the_version_of_this_package():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    found = [re.fullmatch(r"([\w.]+) - (unreleased|\d{4}-\d\d-\d\d)", heading) for heading in headings]
    assert all(found), headings
    versions = [Version(match[1]) for match in found]
    assert versions[0] == Version(__version__)
    assert versions == sorted(versions, reverse=True)
    assert "unreleased" not in [match[2] for match in found[1:]]


def test_the_oldest_python_is_the_first_classifier():
    assert len(PYTHONS) > 1
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    makefile = (ROOT / "Makefile").read_text()
    assert f"PYTHON_OLDEST ?= python{PYTHONS[0]}\n" in makefile


@pytest.mark.parametrize("python", PYTHONS)
def test_every_package_that_is_asked_for_has_one_pin_on_every_python(python):
    constraints = pins("constraints.txt")
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    asked = [
        item
        for item in requirements("host", "cpu", "video", "dev")
        if item.marker is None or item.marker.evaluate(here)
    ]
    assert len(asked) > 20
    for requirement in asked:
        candidates = constraints.get(canonicalize_name(requirement.name), [])
        fitting = [pin for pin in candidates if pin.marker is None or pin.marker.evaluate(here)]
        assert len(fitting) == 1, (requirement, candidates)
        assert requirement.specifier.contains(version(fitting[0])), (requirement, fitting)
