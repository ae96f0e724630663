"""The entropy method: the range in which the quantised distribution diverges least from the tensor's.

After Migacz, "8-bit Inference with TensorRT", GTC 2017, in the form that ONNX Runtime has given it
(onnxruntime/quantization/calibrate.py, HistogramCollector.get_entropy_threshold): for each candidate, what lies outside
is added to the outermost bins, the bins inside are merged into as many as there are levels and spread out again, and
the Kullback-Leibler divergence between the two is taken.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Histogram, Range

# From end to end, as ONNX Runtime has it by default. By default it also has 128 bins, so one candidate only, and the
# method becomes min-max; the bins of a histogram here are many more.
LEVELS = 128
# On either side of zero: neighbours are merged until they are no more, for each is a candidate.
MAX_HALF_BINS = 1024
_EPSILON = 1e-4


def entropy(histogram: Histogram) -> Range:
    """Returns the range of least divergence, no wider than what was seen.

    A tensor of both signs is searched symmetrically about zero, as in ONNX Runtime. One of one sign, as behind a ReLU,
    is mirrored first, so that its own side has all the levels; and zeros, which every range represents exactly, do not
    count, or they would outweigh all else: their bin is made as high as the next one.

    Args:
        histogram: Of the tensor. One of so few bins that levels are not scarce keeps all that was seen.
    """
    counts, width, levels = searched(histogram)
    half = len(counts) // 2
    reaches = range(levels // 2, half + 1)
    if not reaches:
        return Range(min(0.0, histogram.min), max(0.0, histogram.max))
    divergences = [_divergence(counts, half - reach, min(half + reach + 1, 2 * half), levels) for reach in reaches]
    threshold = reaches[int(np.argmin(divergences))] * width
    return Range(min(0.0, max(-threshold, histogram.min)), max(0.0, min(threshold, histogram.max)))


def searched(histogram: Histogram) -> tuple[NDArray[np.int64], float, int]:
    """Returns what the search for a range goes by.

    Args:
        histogram: Of the tensor.

    Returns:
        Counts of as many bins below zero as above, at most MAX_HALF_BINS of either; the width of a bin; the number of
        levels they are merged into.
    """
    counts, width = two_sided(histogram)
    half = len(counts) // 2
    side = counts[half:] if histogram.min >= 0 else counts[half - 1 :: -1] if histogram.max <= 0 else None
    if side is None:
        return counts, width, LEVELS
    one = np.concatenate([side[1:2], side[1:]])
    return np.concatenate([one[::-1], one]), width, 2 * LEVELS


def two_sided(histogram: Histogram) -> tuple[NDArray[np.int64], float]:
    """Returns counts of as many bins below zero as above, at most MAX_HALF_BINS of either, and the width of a bin."""
    below = round(-histogram.lo / histogram.width)
    half = max(below, len(histogram.counts) - below)
    merged = 1
    while math.ceil(half / merged) > MAX_HALF_BINS:
        merged *= 2
    half = math.ceil(half / merged) * merged
    counts = np.zeros(2 * half, np.int64)
    counts[half - below : half - below + len(histogram.counts)] = histogram.counts
    return counts.reshape(-1, merged).sum(1), merged * histogram.width


def _divergence(counts: NDArray[np.int64], start: int, end: int, levels: int) -> float:
    inside = counts[start:end]
    reference = inside.astype(np.float64)
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    size = len(inside) // levels
    merged = inside[: levels * size].reshape(levels, size).sum(1)
    merged[-1] += inside[levels * size :].sum()
    occupied = (reference[: levels * size] != 0).reshape(levels, size).sum(1)
    candidate = np.zeros(len(inside))
    # Whole counts, as ONNX Runtime has them: a level of one value in many bins is lost.
    candidate[: levels * size] = np.repeat(np.where(occupied > 0, merged // np.maximum(occupied, 1), 0), size)
    return _kullback_leibler(reference, candidate)


def _kullback_leibler(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> float:
    smoothed = [_smoothed(reference), _smoothed(candidate)]
    if any(each is None for each in smoothed):
        return math.inf
    p, q = (each / each.sum() for each in smoothed if each is not None)
    return float((p * np.log(p / q)).sum())


def _smoothed(distribution: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Takes a little off every bin that has some and gives it to those that have none; None where that cannot be."""
    empty = distribution == 0
    occupied = len(distribution) - int(empty.sum())
    if not occupied:
        return None
    taken = _EPSILON * (len(distribution) - occupied) / occupied
    return np.where(empty, _EPSILON, distribution - taken) if taken < 1 else None
