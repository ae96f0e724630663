"""What libraries can do on machines that are made up here."""

import importlib
import importlib.util
import io
import sys
import types
from dataclasses import replace

import pytest
from rich.console import Console

from fcn_deploy.diagnostics.checkup import Checkup
from fcn_deploy.diagnostics.libraries import Packages, find_libraries
from fcn_deploy.diagnostics.machine import Cpu, Machine, Nvidia
from fcn_deploy.installation import install_command
from fcn_deploy.reporting.doctor import doctor_tables
from fcn_deploy.runtime.tensorrt.driver import Gpu, install_cuda_packages
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS

GIB = 2**30
ADA = Gpu(0, "NVIDIA RTX 4000 Ada Generation", "8.9", 20 * GIB)
HOPPER = Gpu(1, "NVIDIA H200", "9.0", 140 * GIB)
PACKAGES = Packages()
SPEC = types.SimpleNamespace(origin="made up")


def machine(*gpus, cuda=None, board=None):
    problem = None if gpus else "no NVIDIA driver was found"
    return Machine("CPython 3.11", "Linux", board, Cpu("A CPU", 4, True), Nvidia("580.65.06", gpus, problem, cuda))


def by_name(machine, packages=PACKAGES):
    return {library.name: library for library in find_libraries(machine, packages)}


def without(*modules):
    return replace(PACKAGES, found=lambda module: module not in modules and PACKAGES.found(module))


def onnxruntime(*providers, packages=("onnxruntime",)):
    """Packages among which is an ONNX Runtime with these providers, installed as these packages."""
    module = types.ModuleType("onnxruntime")
    module.get_available_providers = lambda: list(providers)
    module.__version__ = "1.32.0"
    versions = dict.fromkeys(("onnxruntime", "onnxruntime-gpu")) | dict.fromkeys(packages, "1.32.0")
    return Packages(
        version=lambda package: versions[package] if package in versions else PACKAGES.version(package),
        found=lambda name: name == "onnxruntime" or PACKAGES.found(name),
        load=lambda name: module if name == "onnxruntime" else PACKAGES.load(name),
    )


@pytest.mark.parametrize(
    ("bf16", "precisions"), [(True, "fp32 bf16 int8"), (None, "fp32 bf16 int8"), (False, "fp32 int8")]
)
def test_openvino_runs_bf16_if_the_cpu_may_have_it_and_is_not_loaded(bf16, precisions):
    here = replace(machine(), cpu=Cpu("A CPU", 4, True, bf16))
    installed = replace(
        PACKAGES,
        found=lambda module: module == "openvino" or PACKAGES.found(module),
        version=lambda package: "2026.4.1" if package == "openvino" else PACKAGES.version(package),
    )
    library = by_name(here, installed)["openvino"]
    assert (library.version, library.loaded, library.engines) == ("2026.4.1", False, ".onnx")
    assert (" ".join(library.builds), dict(library.runs)) == (precisions, {"cpu": library.builds})
    missing = by_name(here, without("openvino"))["openvino"]
    assert (missing.installed, missing.problem, missing.fix) == (False, "not installed", install_command("openvino"))


@pytest.fixture
def nvidia_libraries(monkeypatch):
    """Makes up NVIDIA's libraries, each with the version it states, by module."""

    def make(version="10.3.0", **versions):
        names = {flavor.module for flavor in FLAVORS.values()}
        real = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: SPEC if name in names else real(name, *rest)
        )
        for name in names:
            module = types.ModuleType(name)
            module.__version__ = versions.get(name, version)
            monkeypatch.setitem(sys.modules, name, module)

    return make


def test_the_tables_of_a_checkup_fit_eighty_columns(nvidia_libraries):
    nvidia_libraries(tensorrt_rtx="1.7.1.116")
    here = machine(ADA, HOPPER, cuda="13.0")
    console = Console(width=80, file=io.StringIO())
    for table in doctor_tables(Checkup(here, find_libraries(here))):
        console.print(table)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "580.65.06; for CUDA 13.0 and older" in text
    assert "0: NVIDIA RTX 4000 Ada Generation, architecture 8.9, 20.0 GiB" in text


def test_with_a_gpu_the_tensorrt_libraries_are_loaded_and_run(nvidia_libraries):
    nvidia_libraries(tensorrt_rtx="1.7.1.116", tensorrt="11.4.1")
    found = by_name(machine(ADA))
    assert found["tensorrt"].version == "11.4.1"
    for name in ("tensorrt", "tensorrt-rtx"):
        assert found[name].builds == ("fp32", "fp16", "bf16", "int8", "fp8")
        assert found[name].problem is None
    assert found["tensorrt-lean"].builds == ()
    assert found["tensorrt-lean"].runs == (("gpu", ("fp32", "fp16", "bf16", "int8", "fp8")),)


@pytest.mark.parametrize(("capability", "lacks"), [("7.5", {"bf16", "fp8"}), ("8.7", {"fp8"}), ("8.9", set())])
def test_a_gpu_builds_and_runs_the_precisions_that_it_has(nvidia_libraries, capability, lacks):
    nvidia_libraries()
    found = by_name(machine(replace(ADA, compute_capability=capability)))
    precisions = tuple(each for each in ("fp32", "fp16", "bf16", "int8", "fp8") if each not in lacks)
    assert found["tensorrt"].builds == precisions
    assert dict(found["tensorrt"].runs) == dict(found["tensorrt-rtx"].runs) == {"gpu": precisions}
    assert found["tensorrt-rtx"].builds == ("fp32", "fp16", "bf16", "int8", "fp8")


def test_without_a_gpu_only_what_builds_ahead_of_time_builds(nvidia_libraries):
    nvidia_libraries()
    found = by_name(machine())
    assert found["tensorrt-rtx"].builds == ("fp32", "fp16", "bf16", "int8", "fp8")
    assert found["tensorrt-rtx"].problem == "runs nothing without an NVIDIA GPU and its driver"
    assert found["tensorrt"].builds == ()
    assert found["tensorrt"].problem == "builds and runs nothing without an NVIDIA GPU and its driver"
    assert not any(found[name].runs or found[name].loaded for name in FLAVORS)


def test_a_gpu_whose_architecture_a_library_does_not_list_is_named(nvidia_libraries):
    nvidia_libraries(tensorrt_rtx="1.7.1.116")
    found = by_name(machine(ADA, HOPPER))
    problem = "does not name the architecture of NVIDIA H200 (9.0): it may refuse the GPU"
    assert found["tensorrt-rtx"].problem == problem
    assert found["tensorrt"].problem is None


def test_old_and_broken_tensorrt_libraries_are_reported(nvidia_libraries, monkeypatch):
    nvidia_libraries(version="8.6.1")
    real = importlib.import_module

    def load(name, *rest):
        if name == "tensorrt_lean":
            raise ImportError("libnvinfer_lean.so.10: cannot open shared object file")
        if name == "tensorrt_rtx":
            raise AttributeError("half of a module")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", load)
    found = by_name(machine(ADA))
    assert found["tensorrt"].problem == "is too old: 8.6.1"
    assert found["tensorrt"].fix == install_command("tensorrt")
    lean = found["tensorrt-lean"]
    assert lean.problem == "cannot be loaded: libnvinfer_lean.so.10: cannot open shared object file"
    assert found["tensorrt-rtx"].problem == "cannot be loaded: AttributeError: half of a module"
    assert not any(found[name].runs or found[name].builds for name in FLAVORS)


@pytest.mark.parametrize("broken", ["onnxruntime", "onnx"])
def test_a_library_that_cannot_be_loaded_is_reported(broken):
    def load(name):
        if name == broken:
            raise TypeError("Descriptors cannot be\ncreated directly")
        return PACKAGES.load(name)

    found = by_name(machine(), replace(PACKAGES, load=load))
    assert found[broken].problem == "cannot be loaded: TypeError: Descriptors cannot be created directly"
    assert found[broken].installed
    assert found["onnxruntime"].builds == ()


def test_onnxruntime_on_a_gpu_needs_its_own_package():
    runtime = by_name(machine(ADA), onnxruntime("CPUExecutionProvider"))["onnxruntime"]
    assert runtime.runs == (("cpu", ("fp32", "int8")),)
    assert "no CUDA provider" in runtime.problem
    assert runtime.fix.endswith(install_command("gpu"))
    packages = onnxruntime("CUDAExecutionProvider", "CPUExecutionProvider", packages=("onnxruntime-gpu",))
    runtime = by_name(machine(ADA), packages)["onnxruntime-gpu"]
    assert runtime.runs == (("cpu", ("fp32", "int8")), ("gpu", ("fp32",)))
    assert runtime.problem is None


def test_tensorrt_engines_do_not_run_without_cuda_core(nvidia_libraries):
    nvidia_libraries()
    found = by_name(machine(ADA), without("cuda.core"))
    assert FLAVORS
    for flavor in FLAVORS.values():
        assert found[flavor.name].runs == ()
        assert found[flavor.name].problem == "runs nothing without cuda-core"
        assert found[flavor.name].fix == install_cuda_packages()
    assert found["tensorrt"].builds == ("fp32", "fp16", "bf16", "int8", "fp8")


def cuda_packages(**versions):
    """Packages among which are cuda-core and cuda-bindings of these versions."""
    known = {f"cuda-{name}": version for name, version in versions.items()}
    return replace(
        PACKAGES,
        version=lambda package: known.get(package) or PACKAGES.version(package),
        found=lambda module: module in ("cuda.core", "cuda.bindings") or PACKAGES.found(module),
    )


def test_bindings_for_a_newer_cuda_than_the_driver_s_are_named(nvidia_libraries):
    nvidia_libraries()
    found = by_name(machine(ADA, cuda="12.6"), cuda_packages(core="1.2.2", bindings="13.5.0"))
    bindings = found["cuda-bindings"]
    assert bindings.problem == "version 13.5.0 needs a driver of a newer CUDA than 12.6"
    assert bindings.fix == install_command("cuda12")
    assert found["tensorrt"].runs == ()
    assert found["tensorrt"].problem == "runs nothing without cuda-bindings that fits"
    assert found["tensorrt"].fix == install_command("cuda12")


@pytest.mark.parametrize(("bindings", "cuda"), [("12.9.10", "12.6"), ("12.9.10", "13.0"), ("13.5.0", None)])
def test_bindings_for_the_driver_s_cuda_or_an_older_one_fit(nvidia_libraries, bindings, cuda):
    nvidia_libraries()
    found = by_name(machine(ADA, cuda=cuda), cuda_packages(core="0.5.0", bindings=bindings))
    assert found["cuda-bindings"].problem is found["cuda-core"].problem is None
    assert found["tensorrt"].runs


@pytest.mark.parametrize(("cuda", "extra"), [("12.6", "cuda12"), ("13.0", "cuda13")])
def test_a_cuda_core_without_its_api_is_named(nvidia_libraries, cuda, extra):
    nvidia_libraries()
    found = by_name(machine(ADA, cuda=cuda), cuda_packages(core="0.4.2", bindings="12.9.10"))
    assert found["cuda-core"].problem == "is too old: 0.4.2, expected 0.5 or newer"
    assert found["cuda-core"].fix == install_command(extra)
    assert found["tensorrt"].problem == "runs nothing without cuda-core that fits"


def test_on_a_jetson_tensorrt_comes_from_jetpack():
    jetson = by_name(machine(board="NVIDIA Jetson Orin Nano Developer Kit"))["tensorrt"]
    assert jetson.problem == "not installed"
    assert "--system-site-packages" in jetson.fix
    assert "tensorrt>=" not in jetson.fix
    assert by_name(machine(board="Raspberry Pi 5"))["tensorrt"].fix == install_command("tensorrt")


@pytest.mark.parametrize(("missing", "extra"), [("onnx", "host"), ("onnxruntime", "cpu")])
def test_a_library_that_is_missing_to_build_with_is_named(nvidia_libraries, missing, extra):
    nvidia_libraries()
    found = by_name(machine(ADA), without(missing))
    assert found["tensorrt"].builds == found["onnxruntime"].builds == ()
    assert found["tensorrt"].problem == f"builds nothing without {missing}"
    assert found["tensorrt"].fix == install_command(extra)
    assert found["tensorrt"].runs
    assert found["tensorrt-lean"].problem is None


def test_two_onnxruntimes_are_one_too_many():
    packages = onnxruntime("CPUExecutionProvider", packages=("onnxruntime", "onnxruntime-gpu"))
    runtime = by_name(machine(), packages)["onnxruntime and onnxruntime-gpu"]
    assert "overwrite each other" in runtime.problem
