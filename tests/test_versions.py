"""The versions that the project's files name agree with each other."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [
    text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.fullmatch(r"Programming Language .* 3\.\d+", text)
]
NOT_TESTED_OLDEST = {"torch"}  # tools/oldest.txt says why


def requirements(*extras):
    """What the project asks for itself, and with some extras."""
    texts = PROJECT["dependencies"] + [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    return [Requirement(text) for text in texts]


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
