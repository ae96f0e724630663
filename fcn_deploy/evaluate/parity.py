"""Parity: how far one net's results are from another's on the same images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import InputError
from fcn_deploy.runtime.backend import Backend
from fcn_deploy.runtime.segmenter import Segmenter

_SMALLEST_RANGE = 1e-6


@dataclass(frozen=True)
class Parity:
    """What a comparison found.

    Attributes:
        images: How many were compared.
        agreement: Share of pixels labelled alike, 0..1.
        error: Largest `relative_error` of an image's logits; None where one side gives labels only.
        sqnr: Signal to quantisation noise ratio of the logits in dB; None likewise, infinite where they are equal.
    """

    images: int
    agreement: float
    error: float | None = None
    sqnr: float | None = None


def relative_error(reference: NDArray[np.floating[Any]], candidate: NDArray[np.floating[Any]]) -> float:
    """Returns `max |a - b| / max(ptp(reference), 1e-6)`: the largest difference as a share of the reference's range.

    Args:
        reference: float, any shape, not empty.
        candidate: float, of the same shape.

    Returns:
        0 or more; infinite where a value is not finite.

    Raises:
        InputError: The shapes differ.
    """
    if reference.shape != candidate.shape:
        raise InputError("results differ in shape", got=list(candidate.shape), expected=list(reference.shape))
    difference = float(np.abs(reference.astype(np.float64) - candidate).max())
    error = difference / max(float(np.ptp(reference)), _SMALLEST_RANGE)
    return error if math.isfinite(error) else math.inf


def compare_backends(reference: Backend, candidate: Backend, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> float:
    """Returns the largest `relative_error` of the first output over several inputs.

    Raises:
        InputError: The results differ in shape, or an input does not fit.
    """
    name = reference.outputs[0].name
    return max(relative_error(reference.infer(feed)[name], candidate.infer(feed)[name]) for feed in feeds)


def compare(reference: Segmenter, candidate: Segmenter, images: Iterable[NDArray[np.uint8]]) -> Parity:
    """Compares two engines image by image.

    Args:
        reference: What is right.
        candidate: What is measured.
        images: uint8 [H, W, 3], RGB, of any sizes; must yield at least one.

    Raises:
        InputError: There are no images, or one does not fit an engine.
    """
    count = pixels = same = 0
    error, signal, noise = 0.0, 0.0, 0.0
    with_logits = reference.io == candidate.io == "tensor"
    for image in images:
        count += 1
        if with_logits:
            expected, found = score(reference, image), score(candidate, image)
            error = max(error, relative_error(expected, found))
            signal += float(np.square(expected, dtype=np.float64).sum())
            noise += float(np.square(expected - found, dtype=np.float64).sum())
            expected_labels, found_labels = expected.argmax(0), found.argmax(0)
        else:
            expected_labels, found_labels = label(reference, image), label(candidate, image)
        pixels += expected_labels.size
        same += int((expected_labels == found_labels).sum())
    if not count:
        raise InputError("no images to compare on", expected="at least one")
    if not with_logits:
        return Parity(count, same / pixels)
    sqnr = 10 * math.log10(signal / noise) if signal and noise else math.inf
    return Parity(count, same / pixels, error, sqnr)


def label(segmenter: Segmenter, image: NDArray[np.uint8]) -> NDArray[np.integer[Any]]:
    """Labels one image, also with an engine whose batch is fixed: every place of the batch then holds the image.

    Args:
        segmenter: Any engine.
        image: uint8 [H, W, 3].

    Returns:
        Labels, [H, W].
    """
    return segmenter(_batch(segmenter, image))[0]


def score(segmenter: Segmenter, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scores one image, as `label` does.

    Args:
        segmenter: An engine that gives logits.
        image: uint8 [H, W, 3].

    Returns:
        float32 [C, H, W].
    """
    return segmenter.logits(_batch(segmenter, image))[0]


def _batch(segmenter: Segmenter, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image[np.newaxis], segmenter.fixed_batch or 1, axis=0)
