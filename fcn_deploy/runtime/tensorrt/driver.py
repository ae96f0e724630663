"""Finds the NVIDIA driver and its GPUs, before any library is imported that needs them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver has found.

    Attributes:
        index: Its index, as CUDA counts GPUs.
        name: Its name, as the driver has it.
        compute_capability: Its architecture, such as `8.6`.
        memory: The size of its memory, in bytes.
    """

    index: int
    name: str
    compute_capability: str
    memory: int


def find_gpus() -> tuple[Gpu, ...]:
    """Returns the GPUs of this machine, at least one.

    Raises:
        DependencyError: There is no driver, the driver finds no GPU, or NVIDIA's cuda-bindings are not installed.
    """
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        raise DependencyError(
            "cannot ask the CUDA driver: cuda-bindings is not installed",
            fix=install_cuda_packages(),
        )
    from cuda.bindings import driver

    try:
        (status,) = driver.cuInit(0)
    except RuntimeError as error:  # this machine does not have the driver's library
        raise _no_driver(str(error).strip().split("\n")[0]) from error
    if status != driver.CUresult.CUDA_SUCCESS:
        raise _no_driver(f"cuInit answered {status.name}")
    status, count = driver.cuDeviceGetCount()
    if status != driver.CUresult.CUDA_SUCCESS or count < 1:
        raise _no_driver("a driver without a GPU")
    return tuple(_gpu(index) for index in range(count))


def cuda_of_driver() -> str | None:
    """Returns the version of CUDA that the driver has, such as `12.6`; None if it cannot be asked.

    `find_gpus` must have found the driver.
    """
    from cuda.bindings import driver

    try:
        _, number = driver.cuDriverGetVersion()
    except RuntimeError:  # this machine does not have the driver's library
        return None
    return f"{number // 1000}.{number % 1000 // 10}"  # CUDA writes 12.6 as 12060


def install_cuda_packages(cuda: str | None = None) -> str:
    """Returns the command that installs NVIDIA's CUDA packages for Python.

    Args:
        cuda: The version of CUDA that the driver has, such as `12.6`; None if it is not known.
    """
    if cuda is None:
        return f"{install_command('cuda13')}; or, if the driver is of CUDA 12, {install_command('cuda12')}"
    return install_command("cuda12" if int(cuda.partition(".")[0]) < 13 else "cuda13")


def _no_driver(got: str) -> DependencyError:
    return DependencyError(
        "no NVIDIA driver was found", got=got, fix="run it on a machine with an NVIDIA GPU and its driver"
    )


def _gpu(index: int) -> Gpu:
    from cuda.bindings import driver as cuda

    major_key = cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    minor_key = cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    _, device = cuda.cuDeviceGet(index)
    _, name = cuda.cuDeviceGetName(128, device)
    _, major = cuda.cuDeviceGetAttribute(major_key, device)
    _, minor = cuda.cuDeviceGetAttribute(minor_key, device)
    _, memory = cuda.cuDeviceTotalMem(device)
    return Gpu(index, name.split(b"\0")[0].decode(), f"{major}.{minor}", int(memory))
