"""TensorRT, TensorRT-RTX and TensorRT-lean: one Python API under three module names, and what each of them can do.

The only place that knows them by name; everybody else asks a `Flavor`.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from fcn_deploy.errors import DependencyError, UsageError


@dataclass(frozen=True)
class Flavor:
    """One of NVIDIA's inference libraries.

    Attributes:
        name: As `--backend` and sidecars have it.
        module: What is imported.
        extra: The extra of this package that brings it.
        builds: Whether it has a builder, or only runs what another flavor built.
        builds_without_gpu: Whether its builder works on a machine without an NVIDIA driver.
        timing_cache: Whether its builder keeps a timing cache.
        hardware_compatible: Whether its builder makes engines that run on GPUs newer than the one at hand.
        version_compatible: Whether its builder makes engines that later versions, and the lean runtime, can load.
        compute_capabilities: GPU architectures its builder can be told to build for, such as `8.6`; empty where it
            builds for the GPU at hand.
        runtime_config: Whether its engines are specialised to the GPU, and their CUDA graphs captured, by the library
            itself, as an IRuntimeConfig says.
        runs: Names of the flavors whose engines it runs.
        oldest: The oldest version that will do.
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
    runtime_config: bool
    runs: tuple[str, ...]
    oldest: tuple[int, int]

    @property
    def installed(self) -> bool:
        """Whether its module can be found; it is not imported."""
        spec = importlib.util.find_spec(self.module)
        # A folder of that name without code, such as the type stubs leave, is found as a namespace without a loader.
        return spec is not None and spec.origin is not None

    def check_installed(self) -> None:
        """Checks that its module can be found, without importing it.

        Raises:
            DependencyError: It cannot; the message says what to install.
        """
        if not self.installed:
            raise DependencyError(f"{self.name} is not installed", fix=self._install)

    @property
    def _install(self) -> str:
        return f"pip install 'fcn-deploy[{self.extra}]'"

    def load(self) -> ModuleType:
        """Imports it.

        Raises:
            DependencyError: It is not installed, cannot be loaded, or is too old.
        """
        self.check_installed()
        try:
            module = importlib.import_module(self.module)
        except (ImportError, OSError, RuntimeError) as error:  # the shared libraries behind it have ways of their own
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise DependencyError(f"{self.name} cannot be loaded", got=reason, fix=self._install) from error
        version = str(module.__version__)
        if tuple(int(part) for part in version.split(".")[:2]) < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            raise DependencyError(
                f"{self.name} is too old", got=version, expected=f"{oldest} or newer", fix=self._install
            )
        return module


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
    runtime_config=False,
    runs=("tensorrt",),
    oldest=(10, 3),  # JetPack 6.2
)
_RTX = Flavor(
    name="tensorrt-rtx",
    module="tensorrt_rtx",
    extra="tensorrt-rtx",
    builds=True,
    builds_without_gpu=True,
    timing_cache=False,  # it would ask for a GPU
    hardware_compatible=False,
    version_compatible=False,
    compute_capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    runtime_config=True,
    runs=("tensorrt-rtx",),
    oldest=(1, 0),
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
    runtime_config=False,
    runs=("tensorrt",),
    oldest=(10, 3),
)

FLAVORS = {flavor.name: flavor for flavor in (_TENSORRT, _RTX, _LEAN)}


# The backends that `auto` may take for a TensorRT engine, the first that can build here.
BUILDERS = tuple(flavor for flavor in FLAVORS.values() if flavor.builds)


def find_flavor(name: str) -> Flavor:
    """Returns a flavor by its name.

    Raises:
        UsageError: There is no such flavor.
    """
    if name not in FLAVORS:
        raise UsageError("unknown TensorRT flavor", got=repr(name), expected=" or ".join(FLAVORS))
    return FLAVORS[name]
