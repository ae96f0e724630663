"""What gpu_check.py puts side by side: PyTorch and engines, each as a function from host arrays to host arrays."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.runtime import Backend, normalize
from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend

Output = Literal["labels", "logits"]
Images = NDArray[np.uint8]
_TRANSFERS = 20


class Runner(Protocol):
    """One net in one library with one setting."""

    def prepare(self, images: Images) -> NDArray[Any]:
        """Returns what `infer` takes for images, uint8 [N, H, W, 3]; not timed."""

    def infer(self, feed: NDArray[Any]) -> NDArray[Any]:
        """Goes from host to host: labels [N, H, W] or logits float [N, C, H, W]."""

    def resident(self, feed: NDArray[Any]) -> Callable[[], object] | None:
        """Returns a run whose input lies on the GPU already and whose output stays there; None where there is none."""

    def close(self) -> None:
        """Frees what it holds."""


class TorchRunner:
    """A net in PyTorch, normalisation and argmax included, from uint8 images.

    Args:
        net: float [N, 3, H, W] to float [N, C, H, W]; moved to the device.
        normalization: The net's.
        output: What comes back to the host.
        device: `cuda` or `cpu`.
        dtype: Of weights and activations.
        channels_last: The memory format.
        tf32: Whether FP32 convolutions may use TF32.
        compiled: Whether torch.compile has a go at it.
    """

    def __init__(
        self,
        net: nn.Module,
        normalization: Normalization,
        output: Output,
        device: str,
        dtype: torch.dtype = torch.float32,
        *,
        channels_last: bool = False,
        tf32: bool = False,
        compiled: bool = False,
    ) -> None:
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._net = copy.deepcopy(net).eval().to(device, dtype, memory_format=self._format)  # type: ignore[call-overload]
        self._call: Callable[..., Any] = torch.compile(self._forward) if compiled else self._forward
        self._device, self._dtype, self._output, self._tf32 = device, dtype, output, tf32
        scale, offset = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in normalization.affine())
        self._scale, self._offset = scale.float(), offset.float()
        self._flipped = normalization.color == "BGR"

    def prepare(self, images: Images) -> NDArray[Any]:
        """Images are taken as they are."""
        return images

    def infer(self, feed: NDArray[Any]) -> NDArray[Any]:
        """Copies to the device, runs, copies back."""
        result: NDArray[Any] = self._run(torch.from_numpy(feed).to(self._device)).cpu().numpy()
        return result

    def resident(self, feed: NDArray[Any]) -> Callable[[], object] | None:
        """Runs on a copy that stays on the GPU, and waits for it."""
        if self._device == "cpu":
            return None
        images = torch.from_numpy(feed).to(self._device)

        def run() -> None:
            self._run(images)
            torch.cuda.synchronize()

        return run

    def close(self) -> None:
        """Frees the weights."""
        del self._net, self._call

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), _tf32(self._tf32):
            result: torch.Tensor = self._call(images)
        return result

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        image = images.permute(0, 3, 1, 2)
        image = (image.flip(1) if self._flipped else image).float() * self._scale + self._offset
        logits = self._net(image.to(self._dtype).contiguous(memory_format=self._format))
        return logits.argmax(1).to(torch.uint8) if self._output == "labels" else logits.float()


@contextlib.contextmanager
def _tf32(allowed: bool) -> Any:
    """Sets what torch decides for the whole process, and sets it back."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class EngineRunner:
    """An engine behind a Backend.

    Args:
        backend: Open; closed with the runner.
        normalization: The net's, for an engine that takes float images.
    """

    def __init__(self, backend: Backend, normalization: Normalization) -> None:
        self._backend, self._normalization = backend, normalization
        self._input, self._output = backend.inputs[0], backend.outputs[0].name

    def prepare(self, images: Images) -> NDArray[Any]:
        """Normalises for an engine of `--io tensor`, so that no time of numpy's is measured."""
        return images if self._input.dtype == "uint8" else normalize(images, self._normalization)

    def infer(self, feed: NDArray[Any]) -> NDArray[Any]:
        """Runs the engine."""
        return self._backend.infer({self._input.name: feed})[self._output]

    def resident(self, feed: NDArray[Any]) -> Callable[[], object] | None:
        """ONNX Runtime's backend takes arrays of the host alone."""
        return None

    def close(self) -> None:
        """Closes the backend."""
        self._backend.close()


class PlanRunner(EngineRunner):
    """A TensorRT plan, which also takes arrays of the GPU's.

    Args:
        backend: Open; closed with the runner.
        normalization: The net's, for a plan that takes float images.
    """

    def __init__(self, backend: TensorRTBackend, normalization: Normalization) -> None:
        super().__init__(backend, normalization)
        self._plan = backend

    def resident(self, feed: NDArray[Any]) -> Callable[[], object] | None:
        """Runs the plan from array to array on the GPU, and waits for it."""
        if not torch.cuda.is_available():
            return None  # torch is who puts arrays there
        feeds = {self._input.name: torch.from_numpy(feed).to("cuda")}
        outputs = {self._output: torch.from_numpy(self.infer(feed)).to("cuda")}
        return functools.partial(self._plan.infer_device, feeds, outputs)


def transfer_ms(size: int) -> tuple[float, float]:
    """Returns the median milliseconds that a copy takes to the GPU and back, from and to pinned memory.

    Args:
        size: In bytes.
    """
    host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(size, dtype=torch.uint8, device="cuda")
    return _copy_ms(device, host), _copy_ms(host, device)


def _copy_ms(target: torch.Tensor, source: torch.Tensor) -> float:
    times = []
    for _ in range(_TRANSFERS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source, non_blocking=True)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(np.median(times))
