"""What doctor says of machines: this one, one with nothing installed, and ones with GPUs that are made up here."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from fcn_deploy.diagnostics import libraries, machine
from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime.tensorrt.driver import Gpu
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS

GIB = 2**30
ADA = Gpu(0, "NVIDIA RTX 4000 Ada Generation", "8.9", 20 * GIB)
HOPPER = Gpu(1, "NVIDIA H200", "9.0", 140 * GIB)
ROOT = Path(__file__).parents[2]
FOUND = types.SimpleNamespace(origin="made up")

# What `pip install fcn-deploy` brings, and what that brings.
DEPENDENCIES = ("numpy", "numpy.libs", "click", "rich", "pygments", "markdown_it", "mdurl", "PIL", "pillow.libs")


@pytest.fixture
def found(call):
    """Runs doctor and returns what it found, the libraries by name."""

    def found():
        facts = json.loads(call("doctor", "--json").out)
        return facts, {library["name"]: library for library in facts["libraries"]}

    return found


@pytest.fixture
def gpus(monkeypatch):
    """Makes a driver up, and NVIDIA's libraries by module with the versions they say."""

    def gpus(*gpus, version="10.3.0", **modules):
        monkeypatch.setattr(machine, "find_gpus", lambda: gpus)
        names = {flavor.module for flavor in FLAVORS.values()}
        real = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: FOUND if name in names else real(name, *rest)
        )
        for name in names:
            module = types.ModuleType(name)
            module.__version__ = modules.get(name, version)
            monkeypatch.setitem(sys.modules, name, module)

    return gpus


@pytest.fixture
def onnxruntime(monkeypatch):
    """Makes an ONNX Runtime up."""

    def make(*providers, packages=("onnxruntime",)):
        module = types.ModuleType("onnxruntime")
        module.get_available_providers = lambda: list(providers)
        module.__version__ = "1.32.0"
        module.__spec__ = object()  # find_spec refuses a module without
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        real = libraries._version
        versions = dict.fromkeys(packages, "1.32.0") | {
            name: None for name in libraries._ONNX_RUNTIMES if name not in packages
        }
        monkeypatch.setattr(
            libraries, "_version", lambda package: versions[package] if package in versions else real(package)
        )

    return make


def test_this_machine(found):
    facts, by_name = found()
    assert facts["format"] == 1
    assert facts["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert facts["cpu"]["cores"] >= 1
    runtime = by_name["onnxruntime"]
    assert (runtime["builds"], runtime["runs"]["cpu"]) == (["fp32", "int8"], ["fp32", "int8"])
    assert "CPUExecutionProvider" in runtime["providers"]
    assert by_name["torch"]["installed"]
    assert not by_name["torch"]["loaded"]


def test_it_fits_eighty_columns(call, gpus):
    gpus(ADA, HOPPER, tensorrt_rtx="1.7.1.116")
    text = call("doctor").out
    assert max(map(len, text.splitlines())) <= 80
    assert "0: NVIDIA RTX 4000 Ada Generation, architecture 8.9, 20.0 GiB" in text


def test_torch_and_nvidia_libraries_are_not_loaded_without_a_gpu():
    script = (
        "import sys\nfrom fcn_deploy.cli.app import run\n"
        "assert run(['doctor']) == 0\n"
        "assert not {'torch', 'tensorrt', 'tensorrt_rtx', 'tensorrt_lean'} & set(sys.modules), sorted(sys.modules)\n"
    )
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=hidden)
    assert result.returncode == 0, result.stderr


def test_a_device_with_nothing_but_the_dependencies(tmp_path):
    site = Path(importlib.util.find_spec("numpy").origin).parents[1]
    for name in DEPENDENCIES:
        if (site / name).exists():
            (tmp_path / name).symlink_to(site / name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-S", "-m", "fcn_deploy", "doctor"]  # -S: no other package is to be found

    def run(*arguments):
        result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    facts = json.loads(run("--json"))
    for library in facts["libraries"]:
        assert library["problem"] == "not installed", library
        assert library["fix"].startswith("pip install "), library
        assert not library["builds"] and not library["runs"]  # noqa: PT018
    assert "cuda-bindings is not installed" in facts["nvidia"]["problem"]
    text = run()
    assert "pip install 'fcn-deploy[cpu]'" in text
    assert max(map(len, text.splitlines())) <= 80


def test_with_a_gpu_the_flavors_are_loaded_and_run(found, gpus):
    gpus(ADA, tensorrt_rtx="1.7.1.116", tensorrt="11.4.1")
    facts, by_name = found()
    assert facts["nvidia"]["gpus"][0]["compute_capability"] == "8.9"
    assert by_name["tensorrt"]["version"] == "11.4.1"
    for name in ("tensorrt", "tensorrt-rtx"):
        assert by_name[name]["builds"] == ["fp32", "fp16", "int8"]
        assert by_name[name]["problem"] is None
    assert by_name["tensorrt-lean"]["builds"] == []
    assert by_name["tensorrt-lean"]["runs"] == {"gpu": ["fp32", "fp16", "int8"]}


def test_without_a_gpu_only_what_builds_ahead_of_time_builds(found, gpus, monkeypatch):
    gpus()
    monkeypatch.setattr(machine, "find_gpus", _refuse(DependencyError("no NVIDIA driver was found", got="cuInit")))
    facts, by_name = found()
    assert facts["nvidia"]["problem"] == "no NVIDIA driver was found: cuInit"
    assert by_name["tensorrt-rtx"]["builds"] == ["fp32", "fp16", "int8"]
    assert by_name["tensorrt-rtx"]["problem"] == "runs nothing without an NVIDIA GPU and its driver"
    assert by_name["tensorrt"]["builds"] == []
    assert by_name["tensorrt"]["problem"] == "builds and runs nothing without an NVIDIA GPU and its driver"
    assert not any(by_name[name]["runs"] or by_name[name]["loaded"] for name in FLAVORS)


def test_an_architecture_that_is_not_named_is_told(found, gpus):
    gpus(ADA, HOPPER, tensorrt_rtx="1.7.1.116")
    _, by_name = found()
    problem = "does not name the architecture of NVIDIA H200 (9.0): it may refuse the GPU"
    assert by_name["tensorrt-rtx"]["problem"] == problem
    assert by_name["tensorrt"]["problem"] is None


def test_old_and_broken_flavors_are_told(found, gpus, monkeypatch):
    gpus(ADA, version="8.6.1")
    real = importlib.import_module

    def load(name, *rest):
        if name == "tensorrt_lean":
            raise ImportError("libnvinfer_lean.so.10: cannot open shared object file")
        if name == "tensorrt_rtx":
            raise AttributeError("half of a module")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", load)
    _, by_name = found()
    assert by_name["tensorrt"]["problem"] == "is too old: 8.6.1"
    assert by_name["tensorrt"]["fix"] == "pip install 'fcn-deploy[tensorrt]'"
    lean = by_name["tensorrt-lean"]
    assert lean["problem"] == "cannot be loaded: libnvinfer_lean.so.10: cannot open shared object file"
    assert by_name["tensorrt-rtx"]["problem"] == "cannot be loaded: AttributeError: half of a module"
    assert not any(by_name[name]["runs"] or by_name[name]["builds"] for name in FLAVORS)


@pytest.mark.parametrize(("module", "package"), [("onnxruntime", "onnxruntime"), ("onnx", "onnx")])
def test_a_library_that_cannot_be_loaded_is_reported(found, monkeypatch, module, package):
    real = importlib.import_module

    def load(name, *rest):
        if name == module:
            raise TypeError("Descriptors cannot be\ncreated directly")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", load)
    _, by_name = found()
    assert by_name[package]["problem"] == "cannot be loaded: TypeError: Descriptors cannot be created directly"
    assert by_name[package]["installed"]
    assert by_name["onnxruntime"]["builds"] == []


def test_onnxruntime_on_a_gpu_needs_its_own_package(found, gpus, onnxruntime):
    gpus(ADA)
    onnxruntime("CPUExecutionProvider")
    runtime = found()[1]["onnxruntime"]
    assert runtime["runs"] == {"cpu": ["fp32", "int8"]}
    assert "no CUDA provider" in runtime["problem"]
    assert runtime["fix"].endswith("pip install 'fcn-deploy[gpu]'")
    onnxruntime("CUDAExecutionProvider", "CPUExecutionProvider", packages=("onnxruntime-gpu",))
    runtime = found()[1]["onnxruntime-gpu"]
    assert runtime["runs"] == {"cpu": ["fp32", "int8"], "gpu": ["fp32"]}
    assert runtime["problem"] is None


def test_engines_do_not_run_without_cuda_core(found, gpus, monkeypatch):
    gpus(ADA)
    real = libraries._found
    monkeypatch.setattr(libraries, "_found", lambda module: module != "cuda.core" and real(module))
    _, by_name = found()
    for flavor in FLAVORS.values():
        assert by_name[flavor.name]["runs"] == {}
        assert by_name[flavor.name]["problem"] == "runs nothing without cuda-core"
        assert by_name[flavor.name]["fix"] == f"pip install 'fcn-deploy[{flavor.extra}]'"
    assert by_name["tensorrt"]["builds"] == ["fp32", "fp16", "int8"]


@pytest.mark.parametrize(("missing", "extra"), [("onnx", "host"), ("onnxruntime", "cpu")])
def test_what_is_missing_to_build_with_is_told(found, gpus, monkeypatch, missing, extra):
    gpus(ADA)
    real = libraries._found
    monkeypatch.setattr(libraries, "_found", lambda module: module != missing and real(module))
    _, by_name = found()
    assert by_name["tensorrt"]["builds"] == by_name["onnxruntime"]["builds"] == []
    assert by_name["tensorrt"]["problem"] == f"builds nothing without {missing}"
    assert by_name["tensorrt"]["fix"] == f"pip install 'fcn-deploy[{extra}]'"
    assert by_name["tensorrt"]["runs"]
    assert by_name["tensorrt-lean"]["problem"] is None


def test_two_onnxruntimes_are_one_too_many(found, onnxruntime):
    onnxruntime("CPUExecutionProvider", packages=("onnxruntime", "onnxruntime-gpu"))
    runtime = found()[1]["onnxruntime and onnxruntime-gpu"]
    assert "overwrite each other" in runtime["problem"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n", "535.183.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n", "540.4.0"),
        ("nothing known", None),
    ],
)
def test_the_version_of_the_driver(found, monkeypatch, tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path / "version")
    monkeypatch.setattr(machine, "find_gpus", _refuse(OSError("libcuda.so.1: file too short")))
    nvidia = found()[0]["nvidia"]
    assert nvidia["driver"] == version
    assert nvidia["problem"] == "the driver cannot be asked: OSError: libcuda.so.1: file too short"


def test_a_board_says_its_name_and_arm_has_none_for_its_cpu(found, monkeypatch, tmp_path):
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n")
    monkeypatch.setattr(machine, "_BOARD", tmp_path / "model")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    facts, _ = found()
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["cpu"]["name"]


@pytest.mark.parametrize(("vnni", "text"), [(True, "generic and vnni"), (False, "saturate"), (None, "unknown")])
def test_what_the_cpu_means_for_int8(found, monkeypatch, vnni, text):
    monkeypatch.setattr(machine, "has_vnni", lambda: vnni)
    assert text in found()[0]["cpu"]["int8"]


def _refuse(error):
    def refuse():
        raise error

    return refuse
