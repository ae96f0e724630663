"""From logits to labels, as every engine that gives labels does it in its graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.runtime.backend import Array


def labels_of(logits: NDArray[np.floating], spec: ModelSpec) -> Array:
    """Returns the label of each pixel.

    Args:
        logits: float [C, H, W] or [N, C, H, W]; C is 1 for a binary net.
        spec: What the net is.

    Returns:
        [H, W] or [N, H, W], uint8 up to 256 classes, else int32: the class with the largest logit, of equal ones the
        first; for a binary net 1 if the value is greater than the threshold, else 0.
    """
    dtype = np.uint8 if spec.num_classes <= 256 else np.int32
    if spec.threshold is not None:
        return (logits[..., 0, :, :] > np.float32(spec.threshold)).astype(dtype)
    labels: Array = logits.argmax(axis=-3).astype(dtype)
    return labels
