"""The one interface in front of every inference library, and what its implementations share."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.errors import ClosedError, InputError

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 on

Array = NDArray[Any]
Provider = Literal["cpu", "cuda"]

PLAN_SUFFIXES = (".engine", ".plan")


class Backend(Protocol):
    """Something that turns named arrays into named arrays, and is closed at the end of a `with`.

    Attributes:
        name: The library's name, as sidecars have it.
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
        """The key-value pairs that the model carries; empty if its format has none."""

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph once; safe to call from several threads.

        Args:
            feeds: One array for each input, of its dtype and shape.

        Returns:
            One array for each output.

        Raises:
            ArtifactError: The library cannot run the graph on these arrays.
            ClosedError: The backend is closed.
            InputError: An input is missing or unknown, or has the wrong dtype or shape.
        """

    def close(self) -> None:
        """Frees what the backend holds; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Closable:
    """A base class for what has a `close`: a `with` block closes it at its end."""

    def close(self) -> None:
        """Frees what this object holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def backend_closed() -> ClosedError:
    """Returns the error of a call on a backend that is closed."""
    return ClosedError("this backend is closed", fix="open the engine again")


class AnyArray(Protocol):
    """What `check_feeds` needs to know of an array, of any library."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, AnyArray], kind: str = "input") -> None:
    """Checks that arrays fit the inputs of a graph.

    Args:
        inputs: What the graph takes.
        feeds: The arrays, by name.
        kind: What error messages call them: `input`, or `output` for arrays to write to.

    Raises:
        InputError: An input is missing or unknown, or has the wrong dtype or shape; the message names it.
    """
    names = {spec.name for spec in inputs}
    if feeds.keys() != names:
        raise InputError(f"wrong {kind}s", got=sorted(feeds), expected=sorted(names))
    for spec in inputs:
        array = feeds[spec.name]
        if array.dtype != np.dtype(spec.dtype):
            raise InputError(f"{kind} {spec.name} has the wrong dtype", got=array.dtype, expected=spec.dtype)
        fits = len(array.shape) == len(spec.shape) and all(
            size == want if isinstance(want, int) else size >= 1
            for size, want in zip(array.shape, spec.shape, strict=True)
        )
        if not fits:
            raise InputError(f"{kind} {spec.name} has the wrong shape", got=list(array.shape), expected=str(spec))
