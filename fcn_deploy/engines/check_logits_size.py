"""Whether a model that another tool has written gives logits as large as its images."""

from __future__ import annotations

import numpy as np

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_SIZES = (ImageShape(1, 33, 47), ImageShape(2, 64, 96))


def check_sizes(model: bytes) -> None:
    """Runs a model at two sizes, or at its own if that is fixed.

    An exporter that traces at one size may say that the model takes any, and have cut it to the traced one inside.

    Args:
        model: Content of an ONNX file with float32 `image` and `logits`.

    Raises:
        InputError: It takes no images, ONNX Runtime does not run it, or the logits are not as large as the image.
    """
    try:
        with OnnxRuntimeBackend(model, simulate_quantization=True) as backend:
            for shape in _SIZES:
                _check_size(backend, shape)
    except ArtifactError as error:  # here the model is the input, not what was made for this machine
        raise InputError(error.what, got=error.got) from error


def _check_size(backend: OnnxRuntimeBackend, shape: ImageShape) -> None:
    image = backend.inputs[0]
    wanted = (shape.batch, 3, shape.height, shape.width)
    if len(image.shape) != len(wanted):
        raise InputError("the model does not take images", got=str(image), expected="image [N, 3, H, W]")
    fed = tuple(own if isinstance(own, int) else size for own, size in zip(image.shape, wanted, strict=True))
    logits = backend.infer({image.name: np.zeros(fed, np.float32)})["logits"]
    if logits.ndim != len(fed) or (logits.shape[0], *logits.shape[2:]) != (fed[0], *fed[2:]):
        raise InputError(
            "the model does not give logits as large as its image",
            got=f"{list(logits.shape)} for {list(fed)}",
            expected="the batch, height and width of the image, at any size",
            fix="export it without sizes that were traced, or for one size, fixed in its input",
        )
