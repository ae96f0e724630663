"""The library OpenVINO: loaded without its telemetry, and asked for the devices of this machine."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import re
import sys
from types import ModuleType
from typing import Any

from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.installation import install_command
from fcn_deploy.runtime import cpu

_log = logging.getLogger(__name__)

NAME = "openvino"
CPU = "CPU"

# As OpenVINO names them: GPU, or GPU.1 of several. AUTO, MULTI and HETERO choose among devices by themselves.
_DEVICE = re.compile(r"(CPU|GPU|NPU)(\.\d+)?")
_TELEMETRY = "openvino_telemetry"

# The kernels that a compiled model keeps for the sizes that it has seen. By itself it keeps 5,000, and grew by 1 MB for
# each size: docs/openvino.md. On Arm it keeps none by itself, and must not: with a limit of any size it took kernels of
# one layer for another, and labels were wrong (2026.4.1, emulated Cortex-A72).
_KERNELS, _MOST_KERNELS = "CPU_RUNTIME_CACHE_CAPACITY", 1000


def check_installed() -> None:
    """Checks that OpenVINO is installed, without importing it.

    Raises:
        DependencyError: It is not.
    """
    if NAME not in sys.modules and importlib.util.find_spec(NAME) is None:
        raise _missing()


@functools.cache
def load() -> ModuleType:
    """Imports OpenVINO.

    The package openvino imports openvino_telemetry, which then writes an identifier under the home folder and sends an
    event to a host. If that package is missing, openvino does without; so it is hidden for the length of the import.
    What the program has imported before stays.

    Raises:
        DependencyError: OpenVINO is not installed, or cannot be loaded.
    """
    check_installed()
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # as documented: the import of it fails
    try:
        return importlib.import_module(NAME)
    except Exception as error:  # a library that does not fit the system can fail in any way
        words = " ".join(str(error).split())
        raise DependencyError("OpenVINO cannot be loaded", got=words, fix=install_command(NAME)) from error
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]


@functools.cache
def core() -> Any:
    """Returns the object that reads and compiles models; one for the process, because it loads a plugin per device.

    Raises:
        DependencyError: As for `load`.
    """
    made = load().Core()
    if cpu.is_arm64():
        return made
    try:
        made.set_property(CPU, {_KERNELS: _MOST_KERNELS})
    except Exception as error:  # a property that OpenVINO does not document may be gone in another version
        _log.debug("OpenVINO keeps kernels without this limit: %s", error)
    return made


@functools.cache
def onnx_reader() -> Any:
    """Returns the part of OpenVINO that reads ONNX; the core would try its readers of all formats on what is not ONNX.

    Raises:
        DependencyError: As for `load`.
    """
    load()
    return importlib.import_module("openvino.frontend").FrontEndManager().load_by_framework("onnx")


def version() -> str:
    """Returns OpenVINO's version, such as `2026.4.1`, without the number of the build."""
    return str(load().__version__).partition("-")[0]


def check_device_name(name: str | None) -> None:
    """Checks the name of a device, without asking whether this machine has it.

    Args:
        name: `CPU`, `GPU` or `NPU`, or `GPU.1` of several; None, for the CPU, passes.

    Raises:
        UsageError: OpenVINO gives no single device this name.
    """
    if name is not None and not (isinstance(name, str) and _DEVICE.fullmatch(name)):
        raise UsageError("unknown `device_name`", got=repr(name), expected="CPU, GPU or NPU, or GPU.1 of several")


def check_device(name: str) -> None:
    """Checks that this machine has a device, and OpenVINO its driver.

    Raises:
        DependencyError: OpenVINO does not find it.
    """
    found = list(core().available_devices)
    if name not in found and f"{name}.0" not in found:
        raise DependencyError(
            f"OpenVINO finds no {name} on this machine",
            got=", ".join(found) or "no device",
            fix=f"install the driver of the {name}, or leave out `device_name`, which runs the engine on the CPU",
        )


def has_bf16() -> bool:
    """Returns whether the CPU multiplies in bfloat16, by OpenVINO and, if the system says so, by its feature flags.

    OpenVINO computes in bfloat16 also on some CPUs without such instructions, and is slower than in float32 there.
    """
    return cpu.has_bf16() is not False and "BF16" in core().get_property(CPU, "OPTIMIZATION_CAPABILITIES")


def _missing() -> DependencyError:
    return DependencyError("OpenVINO is not installed", fix=install_command(NAME))
