"""The Dockerfiles install extras that exist, and copy what the wheel is made of."""

import fnmatch
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def steps(file):
    """The instructions of a Dockerfile, each in one line."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def named_extras(file):
    """The extras of every `EXTRAS=` and of prose such as `host,cpu,cuda12`."""
    return {extra for named in re.findall(r"EXTRAS=([\w,-]+)", file.read_text()) for extra in named.split(",")}


def test_there_is_one_for_a_jetson_and_one_for_x86():
    assert [file.name for file in FILES] == ["jetson.Dockerfile", "x86.Dockerfile"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_extras_exist_and_none_of_them_brings_another_tensorrt(file):
    assert 1 <= len(named_extras(file)) <= 5
    assert named_extras(file) <= set(EXTRAS)
    installed = [text for extra in named_extras(file) for text in EXTRAS[extra]]
    assert not [text for text in installed if text.startswith("tensorrt")]
    (pip,) = [step for step in steps(file) if "pip install" in step]
    assert pip.endswith('"/tmp/fcn-deploy[${EXTRAS}]"')


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_base_image_has_a_tag_and_the_user_is_not_root(file):
    (base,) = [step for step in steps(file) if step.startswith("ARG BASE=")]
    assert re.fullmatch(r"ARG BASE=nvcr\.io/nvidia/[\w-]+:[\w.-]+", base)
    assert not base.endswith(":latest")
    users = [step for step in steps(file) if step.startswith("USER ")]
    assert users == ["USER deploy"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_is_not_ignored(file):
    ignored = (ROOT / ".dockerignore").read_text().split()
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = [name for step in steps(file) if step.startswith("COPY ") for name in step.split()[1:-1]]
    assert {"pyproject.toml", "fcn_deploy"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in allowed), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_that_the_wheel_needs_is_copied(file):
    needed = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"}
    needed |= set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    copied = {name for step in steps(file) if step.startswith("COPY ") for name in step.split()[1:-1]}
    assert needed <= copied
