"""The one interface that every inference library is put behind, and the checks they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.errors import InputError

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


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, Array], kind: str = "input") -> None:
    """Checks arrays against the inputs they are for.

    Args:
        inputs: What is wanted.
        feeds: What is there.
        kind: What errors call them; `output` where arrays are given to be written to.

    Raises:
        InputError: An input is missing, unknown, or of another dtype or shape; the message names it.
    """
    names = {spec.name for spec in inputs}
    if feeds.keys() != names:
        raise InputError(f"wrong {kind}s", got=sorted(feeds), expected=sorted(names))
    for spec in inputs:
        array = feeds[spec.name]
        if array.dtype != np.dtype(spec.dtype):
            raise InputError(f"{kind} {spec.name} has the wrong dtype", got=array.dtype, expected=spec.dtype)
        fits = array.ndim == len(spec.shape) and all(
            size == want if isinstance(want, int) else size >= 1
            for size, want in zip(array.shape, spec.shape, strict=True)
        )
        if not fits:
            raise InputError(f"{kind} {spec.name} has the wrong shape", got=list(array.shape), expected=str(spec))
