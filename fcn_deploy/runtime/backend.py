"""The one interface that every inference library is put behind, and the checks they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.spec import TensorSpec

Array = NDArray[Any]
Provider = Literal["cpu", "cuda"]

PLAN_SUFFIXES = (".engine", ".plan")


class Backend(Protocol):
    """Something that turns named arrays into named arrays.

    Attributes:
        name: Of the library, as sidecars call it.
    """

    name: str

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The key-value pairs the model carries."""

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph once; safe to call from several threads.

        Args:
            feeds: One array for each input, of its dtype and shape.

        Returns:
            One array for each output.

        Raises:
            InputError: An input is missing, unknown, or of another dtype or shape.
        """

    def close(self) -> None:
        """Frees what the backend holds."""


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, Array]) -> None:
    """Checks arrays against the inputs they are for.

    Raises:
        InputError: An input is missing, unknown, or of another dtype or shape; the message names it.
    """
    names = {spec.name for spec in inputs}
    if feeds.keys() != names:
        raise InputError("wrong inputs", got=sorted(feeds), expected=sorted(names))
    for spec in inputs:
        array = feeds[spec.name]
        if array.dtype != np.dtype(spec.dtype):
            raise InputError(f"input {spec.name} has the wrong dtype", got=array.dtype, expected=spec.dtype)
        fits = array.ndim == len(spec.shape) and all(
            size == want if isinstance(want, int) else size >= 1
            for size, want in zip(array.shape, spec.shape, strict=True)
        )
        if not fits:
            raise InputError(f"input {spec.name} has the wrong shape", got=list(array.shape), expected=str(spec))


def open_backend(
    engine: Path,
    *,
    threads: int | None = None,
    provider: Provider | None = None,
    device: int | None = None,
    flavor: str | None = None,
    allow_host_code: bool = False,
) -> Backend:
    """Opens an engine with the library its suffix stands for.

    Args:
        engine: An `.onnx` file, or a plan: `.engine` or `.plan`.
        threads: CPU threads of one inference; the library's default where None. Refused for plans.
        provider: What ONNX Runtime runs on, the CPU where None. There is no fallback: what cannot be had is an error.
            Refused for plans.
        device: Index of the GPU; 0 where None.
        flavor: The TensorRT library that runs a plan; where None the one that its sidecar names. Refused for ONNX.
        allow_host_code: Lets a plan run code on the host. Refused for ONNX.

    Raises:
        ArtifactError: Engine, sidecar, library and machine do not fit together, or the file is corrupt.
        DependencyError: The library, the provider, a driver or the GPU is not there.
        InputError: The file does not exist, or is neither an engine nor a model.
        UsageError: An option does not go with this engine, or nothing says which library built the plan.
    """
    if not engine.is_file():
        raise InputError(f"cannot open {engine}", got="no such file")
    if engine.suffix in PLAN_SUFFIXES:
        if threads is not None or provider is not None:
            raise UsageError(
                "threads and providers are for ONNX engines; a plan runs on the GPU",
                got=f"threads={threads}, provider={provider}, for {engine}",
                fix="leave them out",
            )
        from fcn_deploy.runtime.tensorrt import TensorRTBackend

        return TensorRTBackend(engine, device=device, flavor=flavor, allow_host_code=allow_host_code)
    if engine.suffix != ".onnx":
        raise InputError(
            f"{engine} is neither an engine nor an exported model",
            expected="a name that ends in .onnx, .engine or .plan",
            fix="for a checkpoint, write pytorch: before its path",
        )
    if allow_host_code or flavor is not None:
        option = "allow_host_code" if allow_host_code else "flavor"
        raise UsageError(f"{option} is for TensorRT plans", got=f"{engine}, an ONNX model")
    from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(engine, threads=threads, provider=provider or "cpu", device=device)
