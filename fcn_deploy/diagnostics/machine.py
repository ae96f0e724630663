"""What this machine is: Python, system, CPU, NVIDIA driver and GPUs."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime.cores import CORES
from fcn_deploy.runtime.cpu import exact_8_bits, has_bf16
from fcn_deploy.runtime.tensorrt.driver import Gpu, cuda_of_driver, find_gpus


@dataclass(frozen=True)
class Cpu:
    """A processor, and what it means for INT8.

    Attributes:
        name: As the system calls it.
        cores: Number of cores that this process may use.
        vnni: Whether weights of all 8 bits, as engines for the target CPU `vnni` have them, give exact results; None if
            that is not known.
        bf16: Whether it multiplies in bfloat16; None if the system does not say.
    """

    name: str
    cores: int
    vnni: bool | None
    bf16: bool | None = None

    @property
    def int8(self) -> str:
        """Which INT8 engines for ONNX Runtime give right results on it."""
        if self.vnni:
            return "8-bit weights are exact: engines for the target CPUs generic and vnni"
        if self.vnni is None:
            return (
                "unknown whether 8-bit weights are exact: build for the target CPU generic, which is exact everywhere"
            )
        return "no VNNI: 8-bit weights would saturate; engines for the target CPU generic (7-bit weights) are exact"


@dataclass(frozen=True)
class Nvidia:
    """NVIDIA's driver and its GPUs.

    Attributes:
        driver: Version of the driver; None if the system does not list it.
        gpus: The GPUs; empty if the driver cannot be asked.
        problem: Why there are no GPUs, or None.
        cuda: Version of CUDA that the driver has, such as `12.6`; None if the driver cannot be asked.
    """

    driver: str | None
    gpus: tuple[Gpu, ...]
    problem: str | None
    cuda: str | None = None


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        python: Implementation and version.
        system: Operating system, its release and the architecture.
        board: The name of a board with a device tree, or None.
        cpu: Its processor.
        nvidia: NVIDIA's driver and its GPUs.
    """

    python: str
    system: str
    board: str | None
    cpu: Cpu
    nvidia: Nvidia


@dataclass(frozen=True)
class System:
    """What tells about a machine; tests put their own in its place.

    Attributes:
        cpuinfo: File that names the processor.
        board: File that names a board with a device tree, such as a Jetson.
        nvidia: File that names the version of NVIDIA's driver.
        gpus: Asks the driver for its GPUs; raises DependencyError without a driver.
        cuda: Returns the version of CUDA that a driver with GPUs has, or None.
        vnni: Returns whether weights of all 8 bits give exact results on the processor, or None.
        bf16: Returns whether it has instructions for bfloat16, or None.
    """

    cpuinfo: Path = Path("/proc/cpuinfo")
    board: Path = Path("/proc/device-tree/model")
    nvidia: Path = Path("/proc/driver/nvidia/version")
    gpus: Callable[[], tuple[Gpu, ...]] = find_gpus
    cuda: Callable[[], str | None] = cuda_of_driver
    vnni: Callable[[], bool | None] = exact_8_bits
    bf16: Callable[[], bool | None] = has_bf16


_SYSTEM = System()


def this_machine(system: System = _SYSTEM) -> Machine:
    """Describes the machine this runs on; no library but the driver is loaded."""
    return Machine(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        board=_text(system.board).rstrip("\0\n") or None,
        cpu=this_cpu(system),
        nvidia=_nvidia(system),
    )


def this_cpu(system: System = _SYSTEM) -> Cpu:
    """Describes the processor, without asking for GPUs."""
    return Cpu(_cpu_name(system), CORES.count, system.vnni(), system.bf16())


def _text(path: Path) -> str:
    """Returns the content of a file of the system; an empty string if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cpu_name(system: System) -> str:
    for line in _text(system.cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()  # on Arm cpuinfo has numbers in place of a name


def _nvidia(system: System) -> Nvidia:
    stated = re.search(r"Kernel Module\D.*?\s(\d+\.[\d.]+)", _text(system.nvidia))
    driver = stated[1] if stated else None
    try:
        return Nvidia(driver, system.gpus(), None, system.cuda())
    except DependencyError as error:
        return Nvidia(driver, (), error.what if error.got is None else f"{error.what}: {error.got}")
    except Exception as error:  # a broken CUDA package can fail in any way; doctor reports it
        return Nvidia(driver, (), f"the driver cannot be asked: {type(error).__name__}: {' '.join(str(error).split())}")
