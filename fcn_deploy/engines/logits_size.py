"""Whether a model that another tool has written gives logits of the size of its images."""

from __future__ import annotations

import numpy as np

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_SIZES = (ImageShape(1, 33, 47), ImageShape(2, 64, 96))


def check_logits_size(model: ExportedModel) -> None:
    """Runs a model at two sizes, or at the one size it is fixed to.

    An exporter that traces a net at one size may declare that the model takes any size, and still cut the logits to
    the size that was traced.

    Args:
        model: With float32 `image` and `logits`, and perhaps with Q/DQ.

    Raises:
        InputError: It takes no images, ONNX Runtime cannot run it, or the logits are not as large as the image.
    """
    try:
        with OnnxRuntimeBackend(model.content, simulate_quantization=True) as backend:
            for shape in _SIZES:
                _check_at(backend, shape.at_least(model.spec.min_size))
    except ArtifactError as error:  # the model is the user's input, not an artifact built for this machine
        raise InputError(error.what, got=error.got) from error


def _check_at(backend: OnnxRuntimeBackend, shape: ImageShape) -> None:
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
