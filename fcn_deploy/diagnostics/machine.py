"""What this machine is: Python, system, CPU, NVIDIA driver and GPUs."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime.cores import CORES
from fcn_deploy.runtime.cpu import has_vnni
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus

_CPUINFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")  # boards with a device tree, Jetsons among them, say there what they are
_NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Cpu:
    """A processor, and what it means for INT8.

    Attributes:
        name: As the system calls it.
        cores: That this process may use.
        vnni: Whether 8-bit products are summed without saturation; None where the system does not say.
    """

    name: str
    cores: int
    vnni: bool | None

    @property
    def int8(self) -> str:
        """Which INT8 engines for ONNX Runtime give right results on it."""
        if self.vnni:
            return "VNNI: engines for --target-cpu generic and vnni are exact"
        if self.vnni is None:
            return "VNNI unknown: build with --target-cpu generic, which is exact everywhere"
        return "no VNNI: 8-bit weights would saturate; engines for --target-cpu generic (7-bit weights) are exact"


@dataclass(frozen=True)
class Nvidia:
    """NVIDIA's driver and the GPUs it has.

    Attributes:
        driver: Its version; None where the system does not list it.
        gpus: What it has; empty where it cannot be asked.
        problem: Why there are none, or None.
    """

    driver: str | None
    gpus: tuple[Gpu, ...]
    problem: str | None


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        python: Implementation and version.
        system: Operating system, its release and the architecture.
        board: What a board with a device tree calls itself, or None.
        cpu: Its processor.
        nvidia: Its driver and GPUs.
    """

    python: str
    system: str
    board: str | None
    cpu: Cpu
    nvidia: Nvidia


def this_machine() -> Machine:
    """Looks at the machine this runs on; nothing but the driver is loaded."""
    return Machine(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        board=_text(_BOARD).rstrip("\0\n") or None,
        cpu=Cpu(_cpu_name(), CORES.count, has_vnni()),
        nvidia=_nvidia(),
    )


def _text(path: Path) -> str:
    """The content of a file of the system's, or nothing where it has none for us."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cpu_name() -> str:
    for line in _text(_CPUINFO).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()  # Arm's list has numbers for a name


def _nvidia() -> Nvidia:
    stated = re.search(r"Kernel Module\D.*?\s(\d+\.[\d.]+)", _text(_NVIDIA))
    driver = stated[1] if stated else None
    try:
        return Nvidia(driver, find_gpus(), None)
    except DependencyError as error:
        return Nvidia(driver, (), error.what if error.got is None else f"{error.what}: {error.got}")
    except Exception as error:  # a broken CUDA package has ways of its own to fail; each is what there is to report
        return Nvidia(driver, (), f"the driver cannot be asked: {type(error).__name__}: {' '.join(str(error).split())}")
