"""TensorRT, TensorRT-RTX and TensorRT-lean: one Python API under three module names, and what each of them can do.

This is the only module that knows them by name; the others ask a `Flavor`.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
from dataclasses import dataclass
from types import ModuleType

from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.installation import install_command

# The first compute capability that has a precision; all that a library runs on have the others:
# https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html
LEAST_GPU = {"bf16": "8.0", "tf32": "8.0", "fp8": "8.9"}


@dataclass(frozen=True)
class Flavor:
    """One of NVIDIA's inference libraries.

    Attributes:
        name: Its name as a `backend`, and in sidecars.
        module: The name of its Python module.
        extra: The extra of this package that installs it.
        builds: Whether it has a builder; otherwise it only runs what another flavor built.
        builds_without_gpu: Whether its builder works on a machine without an NVIDIA driver.
        timing_cache: Whether its builder keeps a timing cache.
        hardware_compatible: Whether its builder makes engines that also run on newer GPUs than the one of this machine.
        version_compatible: Whether its builder makes engines that later versions, and the lean runtime, can load.
        compute_capabilities: GPU architectures that its builder can be told to build for, such as `8.6`; empty if it
            builds for the GPU of this machine.
        without_int8: Those of them for which its plans dequantise weights on every run and multiply in FP16.
        oldest_gpu: The lowest compute capability that it runs on.
        runtime_config: Whether the library itself specialises engines to the GPU and captures their CUDA graphs, as an
            IRuntimeConfig says.
        fuses_channel_scales: Whether its INT8 convolutions take a scale of the weights for each output channel; else
            their kernels write FP32, and others do the rest.
        pads_by_copies: Whether its builder brings channels to multiples of 8 by kernels that only copy.
        runs: Names of the flavors whose engines it runs.
        oldest: The oldest version that this package works with.
    """

    name: str
    module: str
    extra: str
    builds: bool
    builds_without_gpu: bool
    timing_cache: bool
    hardware_compatible: bool
    version_compatible: bool
    compute_capabilities: tuple[str, ...]
    oldest_gpu: tuple[int, int]
    without_int8: tuple[str, ...]
    runtime_config: bool
    fuses_channel_scales: bool
    pads_by_copies: bool
    runs: tuple[str, ...]
    oldest: tuple[int, int]

    @property
    def installed(self) -> bool:
        """Whether its module can be found, without importing it."""
        spec = importlib.util.find_spec(self.module)
        # A folder of this name without code, as type stubs leave it, is found as a namespace without an origin.
        return spec is not None and spec.origin is not None

    def supports(self, compute_capability: str) -> bool:
        """Returns whether it runs on a GPU of an architecture, such as `8.6`, as far as is known here.

        GPUs newer than those that this package knows are left for the library to decide.
        """
        gpu = _pair(compute_capability)
        known = [_pair(each) for each in self.compute_capabilities]
        return gpu >= self.oldest_gpu and (gpu in known or gpu > max(known, default=(0, 0)))

    def multiplies_in(self, precision: str, compute_capability: str) -> bool:
        """Returns whether it builds engines of a precision, or for a base of it, for GPUs of an architecture."""
        if precision == "int8":
            return compute_capability not in self.without_int8
        return _pair(compute_capability) >= _pair(LEAST_GPU.get(precision, "0.0"))

    @property
    def has_wheel(self) -> bool:
        """Whether there is a package of it for this kind of processor: TensorRT-RTX is for x86-64 alone."""
        return self.name != "tensorrt-rtx" or platform.machine().lower() in ("x86_64", "amd64")

    def check_installed(self) -> None:
        """Checks that its module can be found, without importing it.

        Raises:
            DependencyError: It cannot be found; the message says what to install.
        """
        if not self.installed:
            raise DependencyError(f"{self.name} is not installed", fix=self._install)

    @property
    def _install(self) -> str:
        return install_command(self.extra)

    def load(self) -> ModuleType:
        """Imports its module.

        Raises:
            DependencyError: It is not installed, cannot be loaded, or is too old.
        """
        self.check_installed()
        try:
            module = importlib.import_module(self.module)
        except (ImportError, OSError, RuntimeError) as error:  # its shared libraries raise what they like
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise DependencyError(f"{self.name} cannot be loaded", got=reason, fix=self._install) from error
        version = str(module.__version__)
        if tuple(int(part) for part in version.split(".")[:2]) < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            raise DependencyError(
                f"{self.name} is too old", got=version, expected=f"{oldest} or newer", fix=self._install
            )
        return module


def _pair(compute_capability: str) -> tuple[int, int]:
    major, minor = compute_capability.split(".")
    return int(major), int(minor)


_TENSORRT = Flavor(
    name="tensorrt",
    module="tensorrt",
    extra="tensorrt",
    builds=True,
    builds_without_gpu=False,
    timing_cache=True,
    hardware_compatible=True,
    version_compatible=True,
    compute_capabilities=(),
    oldest_gpu=(7, 0),  # of version 10.3; from 10.5 on 7.5
    without_int8=(),
    runtime_config=False,
    fuses_channel_scales=True,
    pads_by_copies=False,
    runs=("tensorrt",),
    oldest=(10, 3),  # JetPack 6.2
)
_RTX = Flavor(
    name="tensorrt-rtx",
    module="tensorrt_rtx",
    extra="tensorrt-rtx",
    builds=True,
    builds_without_gpu=True,
    timing_cache=False,  # it would need a GPU
    hardware_compatible=False,
    version_compatible=False,
    compute_capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    oldest_gpu=(7, 5),
    without_int8=("7.5",),
    runtime_config=True,
    fuses_channel_scales=False,
    pads_by_copies=True,
    runs=("tensorrt-rtx",),
    oldest=(1, 4),
)
_LEAN = Flavor(
    name="tensorrt-lean",
    module="tensorrt_lean",
    extra="tensorrt-lean",
    builds=False,
    builds_without_gpu=False,
    timing_cache=False,
    hardware_compatible=False,
    version_compatible=False,
    compute_capabilities=(),
    oldest_gpu=(7, 0),  # of version 10.3; from 10.5 on 7.5
    without_int8=(),
    runtime_config=False,
    fuses_channel_scales=True,
    pads_by_copies=False,
    runs=("tensorrt",),
    oldest=(10, 3),
)

FLAVORS = {flavor.name: flavor for flavor in (_TENSORRT, _RTX, _LEAN)}

# The backends that `auto` may take for a TensorRT engine: it takes the first one that can build on this machine.
BUILDERS = tuple(flavor for flavor in FLAVORS.values() if flavor.builds)


def find_flavor(name: str) -> Flavor:
    """Returns a flavor by its name.

    Raises:
        UsageError: There is no such flavor.
    """
    if name not in FLAVORS:
        raise UsageError("unknown TensorRT flavor", got=repr(name), expected=" or ".join(FLAVORS))
    return FLAVORS[name]
