"""The GPU and the library that build and run the engines of a deployment, checked before work starts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from fcn_deploy.errors import ArtifactError, DependencyError
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.tensorrt.cuda import Device
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor


@dataclass(frozen=True)
class Target:
    """A GPU of this machine, and a library that builds for it and runs on it.

    Attributes:
        flavor: The library.
        gpu: The GPU.
    """

    flavor: Flavor
    gpu: Gpu

    @classmethod
    def find(cls, flavor: Flavor, device: int | None = None) -> Target:
        """Finds the GPU of an index, 0 if None; no NVIDIA library is loaded yet.

        Raises:
            ArtifactError: The library does not build for this GPU.
            DependencyError: The library, cuda-core, the driver or the GPU is missing.
        """
        flavor.check_installed()
        gpus, index = find_gpus(), 0 if device is None else device
        if not 0 <= index < len(gpus):
            raise DependencyError(f"there is no GPU {index}", got=f"{len(gpus)}, counted from 0")
        gpu = gpus[index]
        Device(index)
        if flavor.compute_capabilities and gpu.compute_capability not in flavor.compute_capabilities:
            raise ArtifactError(
                f"{flavor.name} does not build for this GPU",
                got=f"{gpu.name}, compute capability {gpu.compute_capability}",
                expected=", ".join(flavor.compute_capabilities),
                fix="run it on another GPU, or name another library with `backend`",
            )
        return cls(flavor, gpu)

    @classmethod
    def here(cls, flavor: Flavor, progress: Progress) -> Target | None:
        """Finds the first GPU of this machine for a library; None, with the reason told, if there is none to be had."""
        try:
            return cls.find(flavor)
        except DependencyError as error:
            reason = error.what
        except ArtifactError as error:
            reason = f"{error.what} ({error.got})"
        progress.stage(f"this machine cannot run {flavor.name}, so a bundle for the device will be written: {reason}")
        return None

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """What to ask the builder for: this GPU's alone, if it can be asked."""
        return (self.gpu.compute_capability,) if self.flavor.compute_capabilities else ()

    def current(self) -> AbstractContextManager[None]:
        """Makes the GPU the calling thread's current one, until the context ends."""
        return Device(self.gpu.index).current()

    def described(self, library: str) -> str:
        """Returns GPU and library as a summary states them.

        Args:
            library: The version of the library.
        """
        return f"{self.gpu.name}, compute capability {self.gpu.compute_capability}, {self.flavor.name} {library}"
