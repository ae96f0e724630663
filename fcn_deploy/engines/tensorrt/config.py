"""What only TensorRT's builders are asked for."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, fields

from fcn_deploy.engines.config import Base, require_base
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.errors import UsageError

# Parameters that have another name than the field they become.
_PARAMETERS = {"profiles": "`min_shape`, `opt_shape`, `max_shape`", "compute_capabilities": "`compute_capability`"}


@dataclass(frozen=True)
class TensorRTConfig:
    """What only TensorRT's builders are asked for.

    Attributes:
        profiles: Shapes of images that the engine takes; empty for `profiles.DEFAULT`, or the shape the model fixes.
        base: What an INT8 or FP8 engine computes in where it is not quantised: `fp16`, `fp32` or `bf16`.
        tf32: Whether FP32 layers may multiply in TF32, with 10 bits of mantissa in place of 23.
        workspace: MiB of GPU memory that a layer may use as scratch; None for the library's default.
        builder_optimization_level: 0 builds fastest, 5 searches longest; None for the library's default, 3.
        timing_cache: File of kernel timings: read if it exists, and written after the build.
        hardware_compatibility: Whether the engine is for GPUs of compute capability 8.0 and newer, instead of that of
            this machine alone.
        version_compatible: Whether later versions of the library, and its lean runtime, can load the engine. It then
            holds code that runs on the host, which a runtime only does if the user allows it.
        compute_capabilities: GPU architectures to build for, such as `8.6`; empty for the library's default, which for
            TensorRT-RTX is 8.0 and newer.
        device: Index of the GPU to build on, for a library that needs one; the first if None.

    Raises:
        UsageError: A value is of another type or out of range, or a compute capability is named twice.
    """

    profiles: tuple[ImageProfile, ...] = ()
    base: Base = "fp16"
    tf32: bool = False
    workspace: int | None = None
    builder_optimization_level: int | None = None
    timing_cache: str | os.PathLike[str] | None = None
    hardware_compatibility: bool = False
    version_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()
    device: int | None = None

    def __post_init__(self) -> None:
        require_base(self.base)
        for name in ("tf32", "hardware_compatibility", "version_compatible"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"bad `{name}`", got=repr(getattr(self, name)), expected="True or False")
        listed = self.compute_capabilities
        if not isinstance(listed, tuple) or not all(isinstance(each, str) for each in listed):
            raise UsageError("bad `compute_capability`", got=repr(listed), expected='text such as "8.6", or several')
        if self.workspace is not None and not (_is_integer(self.workspace) and self.workspace >= 1):
            raise UsageError("bad workspace", got=self.workspace, expected="1 MiB or more")
        if self.device is not None and not (_is_integer(self.device) and self.device >= 0):
            raise UsageError("bad `device`", got=self.device, expected="the index of a GPU, 0 or more")
        level = self.builder_optimization_level
        if level is not None and not (_is_integer(level) and 0 <= level <= 5):
            raise UsageError("bad builder optimization level", got=level, expected="0 to 5")
        if len(set(self.compute_capabilities)) != len(self.compute_capabilities):
            raise UsageError("a compute capability is named twice", got=", ".join(self.compute_capabilities))

    def require_defaults(self, backend: str, allowed: Collection[str] = ()) -> None:
        """Checks that nothing is asked of TensorRT's builders, for a backend that none of them builds.

        Args:
            backend: Its name, for the error.
            allowed: Names of the fields that it does take.

        Raises:
            UsageError: Another field is not at its default.
        """
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        refused = [_PARAMETERS.get(name, f"`{name}`") for name in changed if name not in allowed]
        if refused:
            raise UsageError(
                f"options of TensorRT's builders for {backend}", got=", ".join(refused), fix="leave them out"
            )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
