"""A folder of wheels installs without a network, for this machine, and is complete for others."""

import json
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from device_wheels import DEVICES, Device, closure, pins, read_wheel, this_machine, write_folder
from fcn_deploy.demo import EVALUATION_SEEDS, write_scenes
from fcn_deploy.engines.config import BuildConfig
from tests.support.building import build
from tests.support.environments import CleanEnvironment

ROOT = Path(__file__).parents[2]
SEGMENT = """
import sys
import numpy
from fcn_deploy.runtime import Segmenter
with Segmenter(sys.argv[1]) as segmenter:
    assert segmenter(numpy.zeros((9, 7, 3), numpy.uint8)).shape == (9, 7)
"""
DEVICE = Device("aarch64", "3.10", "2.35", ("cli", "cpu"))


def make_wheel(folder, name, version, *requirements):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requirements)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
    return read_wheel(path)


def test_a_device_takes_wheels_for_its_c_library_and_for_older_ones():
    platforms = DEVICE.platforms
    assert platforms[0] == "manylinux_2_35_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64"} < set(platforms)
    assert "manylinux_2_36_aarch64" not in platforms


def test_requirements_are_followed_for_the_device_and_its_extras(tmp_path):
    root = make_wheel(
        tmp_path, "ours", "1", "numpy", 'click; extra == "cli"', 'torch; extra == "host"', 'lib[fast]; extra == "cpu"'
    )
    numpy, click = make_wheel(tmp_path, "numpy", "2"), make_wheel(tmp_path, "click", "8")
    library = make_wheel(tmp_path, "lib", "3", "quick ; extra == 'fast'", "colorama ; sys_platform == 'win32'")
    quick = make_wheel(tmp_path, "quick", "1", "old ; python_version < '3.11'", "numpy")
    unused = make_wheel(tmp_path, "unused", "1")
    there = [root, numpy, click, library, quick, unused]
    needed, lacking = closure(there, "ours", DEVICE)
    assert [wheel.name for wheel in needed] == ["click", "lib", "numpy", "ours", "quick"]
    assert [need.name for need in lacking] == ["old"]
    newer = Device("aarch64", "3.12", "2.39", DEVICE.extras)
    assert closure(there, "ours", newer)[1] == []


def test_a_wheel_of_a_version_that_does_not_fit_is_lacking(tmp_path):
    root = make_wheel(tmp_path, "ours", "1", "numpy>=2")
    _, lacking = closure([root, make_wheel(tmp_path, "numpy", "1.26")], "ours", DEVICE)
    assert lacking == [Requirement("numpy>=2")]


def test_versions_are_those_that_are_tested_on_the_devices_python(tmp_path):
    root = make_wheel(tmp_path, "ours", "1", "numpy", 'cuda-bindings<13,>=12.9; extra == "cuda12"')
    text = 'numpy==2.2.6 ; python_version < "3.11" # a comment\nnumpy==2.4.6 ; python_version >= "3.11"\n'
    text += "# nothing\ncuda-bindings==13.5.0\n"
    assert pins(text, root, DEVICE) == ["numpy==2.2.6", "cuda-bindings==13.5.0"]
    jetson = Device("aarch64", "3.12", "2.39", ("cuda12",))
    assert pins(text, root, jetson) == ["numpy==2.4.6"]  # the extra excludes the other version


def test_every_device_has_a_python_that_is_supported_and_is_in_the_docs():
    supported = (ROOT / "pyproject.toml").read_text()
    page = (ROOT / "docs" / "device.md").read_text()
    for name, device in DEVICES.items():
        assert f"Python :: {device.python}" in supported
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"| {device.python} |" in row
        assert f"`{','.join(device.extras)}`" in row
        assert device.machine in row


@pytest.mark.slow
def test_this_machine_installs_and_runs_an_engine_without_a_network(distributions, exported, tmp_path):
    folder = tmp_path / "bundle"
    write_folder(distributions[1], this_machine(), folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert 20e6 < size < 80e6
    assert not [file for file in folder.iterdir() if file.name.startswith(("torch", "onnx-"))]
    assert distributions[1].is_file()

    environment = CleanEnvironment(tmp_path / "environment")
    environment.install(
        "--isolated", "--no-index", "--find-links", folder, "--requirement", folder / "requirements.txt"
    )
    engine = tmp_path / "net.onnx"
    build(exported("fcn8s"), BuildConfig()).save(engine)
    write_scenes(tmp_path / "street", EVALUATION_SEEDS[:2], (96, 128))
    out = tmp_path / "out"
    quick = ("--duration", 0, "--iterations", 1, "--warmup", 0, "--json")
    for command in (
        ("python", "-c", SEGMENT, engine),
        ("fcn-deploy", "predict", engine, tmp_path / "street" / "images", "-o", out),
        ("fcn-deploy", "benchmark", engine, "--shape", "32x40", *quick),
    ):
        result = environment.run(*command)
        assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["engines"][0]["name"] == "net.onnx"
    assert len(list(out.rglob("*.labels.png"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raspberry-pi-13", "jetson-6"])
def test_other_machines_get_a_complete_folder_of_their_wheels(name, distributions, tmp_path):
    device = DEVICES[name]
    write_folder(distributions[1], device, tmp_path / "bundle")
    wheels = [read_wheel(path) for path in (tmp_path / "bundle").glob("*.whl")]
    needed, lacking = closure(wheels, "fcn-deploy", device)
    assert not lacking
    assert {wheel.name for wheel in needed} == {wheel.name for wheel in wheels}
    names = [wheel.path.name for wheel in wheels]
    assert not [file for file in names if "x86_64" in file]
    (numpy,) = [file for file in names if file.startswith("numpy-")]
    assert f"cp{device.python.replace('.', '')}" in numpy
    assert numpy.endswith("aarch64.whl")
    lines = (tmp_path / "bundle" / "requirements.txt").read_text().splitlines()
    assert sum("--hash=sha256:" in line for line in lines) == len(wheels)
