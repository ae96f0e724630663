"""The extras of pyproject.toml; one may include another, as in `host = ["fcn-deploy[cli]", ...]`."""

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def requirements(*extras: str) -> list[Requirement]:
    """What the project asks for itself, and with some extras."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    ahead = list(extras)
    while ahead:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][ahead.pop(0)]):
            if requirement.name == PROJECT["name"]:
                ahead.extend(requirement.extras)
            else:
                found.append(requirement)
    return found
