"""The extras resolve to packages that exist for the machines they are for, as an index has them today."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
# glibc 2.35 of JetPack 6 (Ubuntu 22.04) takes wheels of every older one; pip has to be told each.
GLIBCS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_27", "manylinux_2_28", "manylinux_2_34")


def resolved(machine, python, *extras):
    """The versions that pip would install, by package."""
    asked = PROJECT["dependencies"] + [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    platforms = [f"--platform={glibc}_{machine}" for glibc in GLIBCS]
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report=-", "--only-binary=:all:", "--target=unused"]
    command = [sys.executable, "-m", "pip", "install", *options, *platforms, f"--python-version={python}", *asked]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode and "connection broken" in result.stderr:
        pytest.skip("no package index can be reached")
    assert result.returncode == 0, result.stderr
    found = [package["metadata"] for package in json.loads(result.stdout)["install"]]
    return {package["name"].lower().replace("_", "-"): Version(package["version"]) for package in found}


@pytest.mark.slow
@pytest.mark.parametrize("extras", [("cuda12",), ("cpu", "cuda12")])
def test_jetpack_6_gets_bindings_of_its_cuda(extras):
    found = resolved("aarch64", "3.10", *extras)
    assert found["cuda-bindings"].major == 12
    assert found["cuda-core"] >= Version("0.5")
    assert not [name for name in found if name.startswith("tensorrt")]
    assert ("onnxruntime" in found) == ("cpu" in extras)


@pytest.mark.slow
def test_jetpack_7_gets_bindings_of_its_cuda():
    found = resolved("aarch64", "3.12", "cpu", "cuda13")
    assert found["cuda-bindings"].major == 13
    assert found["cuda-core"] >= Version("0.5")


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize(("extra", "major"), [("cuda12", 12), ("cuda13", 13)])
def test_x86_gets_both_on_every_python(python, extra, major):
    found = resolved("x86_64", python, "cpu", extra)
    assert found["cuda-bindings"].major == major
    assert found["cuda-core"] >= Version("0.5")
