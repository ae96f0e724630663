"""The entropy method: the range in which the quantised distribution diverges least from that of the tensor.

Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, as ONNX Runtime implements it
(onnxruntime/quantization/calibrate.py, HistogramCollector.get_entropy_threshold). For each candidate, the counts
outside are added to the outermost bins; the bins inside are merged into as many as there are levels and spread out
again; and the Kullback-Leibler divergence between the two is computed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Histogram, Range

# From end to end, ONNX Runtime's default. Its default for bins is 128 too, which leaves one candidate and makes the
# method the same as min-max; the histograms here have many more bins.
LEVELS = 128
# On each side of zero. Each bin is a candidate, so neighbours are merged until there are at most so many.
MAX_HALF_BINS = 1024
_EPSILON = 1e-4


def entropy(histogram: Histogram) -> Range:
    """Returns the range of least divergence, no wider than what was seen.

    A tensor of both signs is searched symmetrically about zero, as in ONNX Runtime. A tensor of one sign, as after a
    ReLU, is mirrored first, so that its own side has all the levels. Its zeros do not count: every range represents
    them exactly, and they would outweigh everything else. So their bin is made as high as the next one.

    Args:
        histogram: Of the tensor. If it has too few bins for a search, the range is all that was seen.
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
    """Returns the counts in which `entropy` searches.

    Args:
        histogram: Of the tensor.

    Returns:
        Counts of as many bins below zero as above, at most MAX_HALF_BINS on each side; the width of a bin; the number
        of levels that the bins are merged into.
    """
    counts, width = two_sided(histogram)
    half = len(counts) // 2
    side = counts[half:] if histogram.min >= 0 else counts[half - 1 :: -1] if histogram.max <= 0 else None
    if side is None:
        return counts, width, LEVELS
    one = np.concatenate([side[1:2], side[1:]])
    return np.concatenate([one[::-1], one]), width, 2 * LEVELS


def two_sided(histogram: Histogram) -> tuple[NDArray[np.int64], float]:
    """Returns counts of as many bins below zero as above, at most MAX_HALF_BINS a side, and the width of a bin."""
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
    # Integer division, as in ONNX Runtime: a level with fewer values than bins becomes 0.
    candidate[: levels * size] = np.repeat(np.where(occupied > 0, merged // np.maximum(occupied, 1), 0), size)
    return _kullback_leibler(reference, candidate)


def _kullback_leibler(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> float:
    smoothed = [_smoothed(reference), _smoothed(candidate)]
    if any(each is None for each in smoothed):
        return math.inf
    p, q = (each / each.sum() for each in smoothed if each is not None)
    return float((p * np.log(p / q)).sum())


def _smoothed(distribution: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Takes a little from every bin with counts and gives it to the empty ones; None if there is too little to take."""
    empty = distribution == 0
    occupied = len(distribution) - int(empty.sum())
    if not occupied:
        return None
    taken = _EPSILON * (len(distribution) - occupied) / occupied
    return np.where(empty, _EPSILON, distribution - taken) if taken < 1 else None
