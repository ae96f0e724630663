"""Which libraries are installed, what each can do on this machine, and what to install for the rest.

Versions come from the metadata of the packages. Only small libraries that often fail to load are loaded, and NVIDIA's
if there is a GPU: without a driver one of them ends the process with a segmentation fault. PyTorch is never loaded.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

from fcn_deploy.diagnostics.machine import Cpu, Machine, Nvidia
from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command
from fcn_deploy.runtime.tensorrt.driver import install_cuda_packages
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS, Flavor

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
# The first compute capability whose GPUs have them.
_FIRST = {"bf16": (8, 0), "fp8": (8, 9)}
_ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # two packages with one module

# What the extra `host` installs: package, module, whether it is loaded, and what it is for. onnxsim is not loaded,
# because it would load torch.
_HOST_LIBRARIES = (
    ("torch", "torch", False, "reads checkpoints, exports, verifies"),
    ("onnx", "onnx", True, "reads and writes models"),
    ("onnx-ir", "onnx_ir", False, "rewrites models"),
    ("onnxscript", "onnxscript", False, "exports"),
    ("onnxsim", "onnxsim", False, "simplifies models"),
    ("safetensors", "safetensors", False, "reads .safetensors"),
)
_FOR_BUILDING = ("onnx", "onnx-ir", "onnxscript")
_CUDA_CORE = (0, 5)  # the oldest version with the API that the runtime uses


@dataclass(frozen=True)
class Library:
    """A library, and what it can do on this machine.

    Attributes:
        name: Of its package.
        version: None if it is not installed, or has no metadata.
        installed: Whether its module can be found.
        loaded: Whether it was imported; a library that was not may still be broken.
        builds: Precisions of engines that it can build here.
        runs: Precisions of engines that it can run here, by device: `cpu`, `gpu`.
        role: What it is for, in a few words.
        engines: Suffix of the engines it is for; None for a library that is not for engines.
        problem: What keeps it from doing more here, or None.
        fix: What to do about that, or None if no installation helps.
        providers: ONNX Runtime's execution providers.
    """

    name: str
    version: str | None
    installed: bool
    loaded: bool
    role: str
    engines: str | None = None
    builds: tuple[str, ...] = ()
    runs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    problem: str | None = None
    fix: str | None = None
    providers: tuple[str, ...] = ()


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a package it lies in is missing, or sys.modules holds it without a spec
        return False


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Packages:
    """How packages are asked for; tests put their own in its place.

    Attributes:
        version: Returns the version of an installed package by its metadata, or None.
        found: Returns whether a module can be found, without importing it.
        load: Imports a module.
    """

    version: Callable[[str], str | None] = _version
    found: Callable[[str], bool] = _found
    load: Callable[[str], ModuleType] = importlib.import_module


_PACKAGES = Packages()


def find_libraries(machine: Machine, packages: Packages = _PACKAGES) -> tuple[Library, ...]:
    """Looks for every library that this package can use.

    Args:
        machine: The machine it would run on.
        packages: What is installed.
    """
    host = tuple(_plain(packages, *library) for library in _HOST_LIBRARIES)
    lacking = [library.name for library in host if library.problem and library.name in _FOR_BUILDING]
    cuda = (_cuda_core(packages, machine.nvidia), _cuda_bindings(packages, machine.nvidia))
    onnxruntime = _onnxruntime(packages, machine.nvidia, lacking)
    if not onnxruntime.loaded:  # every build needs it: calibration runs in it
        lacking = [*lacking, _ONNX_RUNTIMES[0]]
    openvino = _openvino(packages, machine.cpu, lacking)
    unable = [library for library in cuda if library.problem]
    flavors = (_flavor(packages, flavor, machine, lacking, unable) for flavor in FLAVORS.values())
    return onnxruntime, openvino, *flavors, *cuda, *host


def _load(packages: Packages, module: str) -> ModuleType | str:
    """Imports a module, or returns the message with which it fails."""
    try:
        return packages.load(module)
    except Exception as error:  # a library that does not fit the others can fail in any way
        return _words(error)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _plain(packages: Packages, package: str, module: str, load: bool, role: str) -> Library:
    """Describes a library of the extra `host`."""
    version, found = packages.version(package), packages.found(module)
    if not found:
        return Library(package, None, False, False, role, problem="not installed", fix=install_command("host"))
    loaded = _load(packages, module) if load else None
    if isinstance(loaded, str):
        return Library(
            package, version, True, False, role, problem=f"cannot be loaded: {loaded}", fix=install_command("host")
        )
    return Library(package, version, True, loaded is not None, role)


def _cuda_core(packages: Packages, nvidia: Nvidia) -> Library:
    library = _cuda(packages, nvidia, "cuda-core", "cuda.core", "memory and streams of TensorRT engines")
    if library.version is None or _numbers(library.version) >= _CUDA_CORE:
        return library
    problem = f"is too old: {library.version}, expected {'.'.join(map(str, _CUDA_CORE))} or newer"
    return replace(library, problem=problem, fix=install_cuda_packages(nvidia.cuda))


def _cuda_bindings(packages: Packages, nvidia: Nvidia) -> Library:
    library = _cuda(packages, nvidia, "cuda-bindings", "cuda.bindings", "asks the driver for its GPUs")
    if library.version is None or nvidia.cuda is None or _numbers(library.version)[0] <= _numbers(nvidia.cuda)[0]:
        return library
    problem = f"version {library.version} needs a driver of a newer CUDA than {nvidia.cuda}"
    return replace(library, problem=problem, fix=install_cuda_packages(nvidia.cuda))


def _cuda(packages: Packages, nvidia: Nvidia, package: str, module: str, role: str) -> Library:
    if packages.found(module):
        return Library(package, packages.version(package), True, False, role)
    fix = install_cuda_packages(nvidia.cuda)
    return Library(package, None, False, False, role, problem="not installed", fix=fix)


def _numbers(version: str) -> tuple[int, ...]:
    """The major and minor number of a version."""
    return tuple(int(part) for part in version.split(".")[:2])


def _onnxruntime(packages: Packages, nvidia: Nvidia, lacking: Sequence[str]) -> Library:
    installed = [package for package in _ONNX_RUNTIMES if packages.version(package)]
    version = packages.version(installed[0]) if installed else None
    found = packages.found("onnxruntime")
    module = _load(packages, "onnxruntime") if found else None
    library = Library(
        " and ".join(installed) or _ONNX_RUNTIMES[0],
        version if found else None,
        found,
        isinstance(module, ModuleType),
        "builds and runs engines",
        ".onnx",
    )
    if module is None:
        fix = (
            f"{install_command('cpu')}, or for the GPU {install_command('gpu')}"
            if nvidia.gpus
            else install_command("cpu")
        )
        return replace(library, problem="not installed", fix=fix)
    if isinstance(module, str):
        again = f"pip install --force-reinstall {' '.join(installed[:1]) or _ONNX_RUNTIMES[0]}"
        return replace(library, problem=f"cannot be loaded: {module}", fix=again)
    providers = tuple(module.get_available_providers())
    cuda = bool(nvidia.gpus) and "CUDAExecutionProvider" in providers
    library = replace(
        library,
        version=version or str(module.__version__),
        builds=("fp32", "int8"),
        runs=(("cpu", ("fp32", "int8")), *((("gpu", ("fp32",)),) if cuda else ())),
        providers=providers,
    )
    if len(installed) > 1:
        both = "both are installed, and overwrite each other's files"
        fix = f"pip uninstall {' '.join(installed)}, then install one of them"
        library = replace(library, problem=both, fix=fix)
    elif nvidia.gpus and not cuda:
        library = replace(
            library,
            problem="has no CUDA provider, so it does not use the GPU",
            fix=f"pip uninstall onnxruntime, then {install_command('gpu')}",
        )
    return _without_host(library, lacking)


def _openvino(packages: Packages, cpu: Cpu, lacking: Sequence[str]) -> Library:
    """Describes OpenVINO, which is not loaded: that takes half a second."""
    role, install = "builds and runs engines", install_command("openvino")
    if not packages.found("openvino"):
        return Library("openvino", None, False, False, role, ".onnx", problem="not installed", fix=install)
    precisions = ("fp32", "int8") if cpu.bf16 is False else ("fp32", "bf16", "int8")
    library = Library("openvino", packages.version("openvino"), True, False, role, ".onnx")
    return _without_host(replace(library, builds=precisions, runs=(("cpu", precisions),)), lacking)


def _without_host(library: Library, lacking: Sequence[str]) -> Library:
    """Adds to a library that works what keeps it from building."""
    if not lacking:
        return library
    problem = f"builds nothing without {', '.join(lacking)}"
    problem = f"{library.problem}; {problem}" if library.problem else problem
    fix = install_command("cpu") if list(lacking) == [_ONNX_RUNTIMES[0]] else install_command("host")
    return replace(library, builds=(), problem=problem, fix=library.fix or fix)


def _flavor(
    packages: Packages, flavor: Flavor, machine: Machine, lacking: Sequence[str], unable: Sequence[Library]
) -> Library:
    """Describes one of NVIDIA's libraries.

    Args:
        packages: What is installed.
        flavor: The library.
        machine: The machine that it would run on.
        lacking: Packages that are missing to build with.
        unable: Packages to run with that are missing or do not fit.
    """
    nvidia, found = machine.nvidia, flavor.installed
    version = packages.version(flavor.module) if found else None
    role = "builds and runs engines" if flavor.builds else f"runs version-compatible engines of {flavor.runs[0]}"
    library = Library(flavor.name, version, found, False, role, ".engine")
    install = install_command(flavor.extra)
    if not found and not flavor.has_wheel:
        return replace(library, problem="not available for this machine")
    if not found:
        return replace(library, problem="not installed", fix=_of_jetpack(flavor, machine) or install)
    if nvidia.gpus:
        try:
            version = str(flavor.load().__version__)
        except DependencyError as error:
            problem = f"{error.what.removeprefix(f'{flavor.name} ')}: {error.got}"
            return replace(library, problem=problem, fix=error.fix)
        except Exception as error:  # a broken library can fail in any way
            return replace(library, problem=f"cannot be loaded: {_words(error)}", fix=install)
        library = replace(library, version=version, loaded=True, runs=(("gpu", _of_gpu(nvidia)),))
        if unable:
            library = replace(library, runs=(), problem=f"runs nothing without {_needed(unable)}", fix=unable[0].fix)
        elif unnamed := _unnamed(flavor, nvidia):
            library = replace(library, problem=f"does not name the architecture of {unnamed}: it may refuse the GPU")
    else:  # and it is not loaded, see the head of this module
        idle = "builds and runs nothing" if flavor.builds and not flavor.builds_without_gpu else "runs nothing"
        library = replace(library, problem=f"{idle} without an NVIDIA GPU and its driver")
    if not flavor.builds or not (nvidia.gpus or flavor.builds_without_gpu):
        return library
    builds = _PRECISIONS if flavor.builds_without_gpu else _of_gpu(nvidia)
    return _without_host(replace(library, builds=builds), lacking)


def _of_gpu(nvidia: Nvidia) -> tuple[str, ...]:
    """The precisions of the first GPU, for which engines are built and on which they run."""
    capability = _numbers(nvidia.gpus[0].compute_capability)
    return tuple(each for each in _PRECISIONS if capability >= _FIRST.get(each, ()))


def _needed(unable: Sequence[Library]) -> str:
    return ", ".join(f"{library.name} that fits" if library.installed else library.name for library in unable)


def _of_jetpack(flavor: Flavor, machine: Machine) -> str | None:
    """How a Jetson gets TensorRT, which no index has for it; None on other machines."""
    if flavor.name != "tensorrt" or "Jetson" not in (machine.board or ""):
        return None
    return (
        "TensorRT is a package of JetPack: apt install python3-libnvinfer; then "
        "python3 -m venv --system-site-packages .venv, and pip install this package there"
    )


def _unnamed(flavor: Flavor, nvidia: Nvidia) -> str:
    """Returns the GPUs here whose architecture the flavor does not list, if it lists any."""
    known = flavor.compute_capabilities
    unnamed = [gpu for gpu in nvidia.gpus if known and gpu.compute_capability not in known]
    return ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in unnamed)
