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
from fcn_deploy.runtime.backend import Array, Closable, backend_closed, check_feeds
from fcn_deploy.runtime.options import check_threads

if TYPE_CHECKING:
    from collections.abc import Iterator


class TorchBackend(Closable):
    """A Backend that runs a module from `image` to `logits` eagerly on the CPU.

    Args:
        model: Maps float32 [N, 3, H, W], normalised, to float32 [N, C, H, W]; it is put into evaluation mode.
        channels: C.
        threads: torch's threads during an inference, at least 1; those of the process if None.

    Attributes:
        inputs: `image`, float32 [batch, 3, height, width].
        outputs: `logits`, float32 [batch, C, height, width].
        metadata: Empty, because a module carries none.

    Raises:
        UsageError: `threads` is not at least 1.
    """

    name: str = "pytorch"

    def __init__(self, model: nn.Module, channels: int, *, threads: int | None = None) -> None:
        check_threads(threads)
        self._model: nn.Module | None = model.eval()
        self._threads = threads
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec("image", "float32", ("batch", 3, "height", "width")),)
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec("logits", "float32", ("batch", channels, "height", "width")),
        )
        self.metadata: Mapping[str, str] = {}

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the module once; see `Backend.infer`."""
        if self._model is None:
            raise backend_closed()
        check_feeds(self.inputs, feeds)
        # A user's net may print, but stdout is for a command's results.
        with _torch_threads(self._threads), torch.inference_mode(), redirect_stdout(sys.stderr):
            # A copy of a read-only array, because torch has no read-only tensors.
            image = np.require(feeds["image"], requirements=["C", "W"])
            logits: Array = self._model(torch.from_numpy(image)).numpy()
        return {"logits": logits}

    def close(self) -> None:
        """Releases the module."""
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
