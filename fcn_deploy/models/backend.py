"""A torch module as a Backend, to compare with and to time against."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.errors import ClosedError, UsageError
from fcn_deploy.runtime.backend import Array, check_feeds

if TYPE_CHECKING:
    from collections.abc import Iterator


class TorchBackend:
    """A module that maps `image` to `logits`, run eagerly on the CPU.

    Args:
        model: float [N, 3, H, W] to float [N, C, H, W]; put into evaluation mode.
        num_classes: C.
        threads: torch's threads during an inference; what the process has set where None.
    """

    name = "pytorch"

    def __init__(self, model: nn.Module, num_classes: int, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError("bad number of threads", got=threads, expected="1 or more")
        self._model: nn.Module | None = model.eval()
        self._threads = threads
        self._inputs = (TensorSpec("image", "float32", ("batch", 3, "height", "width")),)
        self._outputs = (TensorSpec("logits", "float32", ("batch", num_classes, "height", "width")),)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """`image`, float32 [batch, 3, height, width]."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """`logits`, float32 [batch, C, height, width]."""
        return self._outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        """Nothing: a module carries no metadata."""
        return {}

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the module once.

        Args:
            feeds: `image`, float32 [N, 3, H, W], normalised.

        Returns:
            `logits`, float32 [N, C, H, W].

        Raises:
            ClosedError: The backend has been closed.
            InputError: The input is missing, unknown, or of another dtype or shape.
        """
        if self._model is None:
            raise ClosedError("this backend is closed", fix="make another")
        check_feeds(self._inputs, feeds)
        # Somebody's net may print, and stdout is for what the command has to say.
        with _torch_threads(self._threads), torch.inference_mode(), redirect_stdout(sys.stderr):
            # A copy where the array is read-only: torch has no tensors that are.
            image = np.require(feeds["image"], requirements=["C", "W"])
            logits: Array = self._model(torch.from_numpy(image)).numpy()
        return {"logits": logits}

    def close(self) -> None:
        """Lets go of the module."""
        self._model = None


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
