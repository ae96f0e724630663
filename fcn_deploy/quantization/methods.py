"""From a histogram to a range: the calibration methods, as pure functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np

from fcn_deploy.artifacts.ranges import Histogram, Range
from fcn_deploy.errors import UsageError
from fcn_deploy.quantization.entropy import entropy
from fcn_deploy.quantization.squared_error import least_squared_error

PERCENTILE = 99.99


def min_max(histogram: Histogram) -> Range:
    """Returns the range that clips no value that calibration saw."""
    return Range(min(0.0, histogram.min), max(0.0, histogram.max))


def percentile(histogram: Histogram, share: float = PERCENTILE) -> Range:
    """Returns the range that holds `share` percent of the values.

    Half of what is cut lies at each end, as in ONNX Runtime's PercentileCalibrator
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). An end that falls into a bin moves
    outwards to the edge of that bin.

    Args:
        histogram: Of the tensor.
        share: Percentage of the values to keep, above 0, at most 100.

    Raises:
        UsageError: `share` is out of range.
    """
    if not 0 < share <= 100:
        raise UsageError("bad percentile", got=share, expected="above 0, at most 100")
    cumulative = np.cumsum(histogram.counts)
    cut = (100 - share) / 200 * cumulative[-1]
    # The first bin whose cumulative count is above `cut`, and the first whose count is at least all except `cut`.
    first = int(np.searchsorted(cumulative, cut, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - cut, side="left"))
    edges = histogram.edges
    lo = max(float(edges[first]), histogram.min)
    hi = min(float(edges[last + 1]), histogram.max)
    return Range(min(0.0, lo), max(0.0, hi))


# The second argument says whether the integers are symmetric about zero; only `mse` depends on it.
METHODS: Mapping[str, Callable[[Histogram, bool], Range]] = {
    "minmax": lambda histogram, symmetric: min_max(histogram),
    "percentile": lambda histogram, symmetric: percentile(histogram),
    "entropy": lambda histogram, symmetric: entropy(histogram),
    "mse": least_squared_error,
}


def choose(histograms: Mapping[str, Histogram], method: str, *, symmetric: bool) -> dict[str, Range]:
    """Applies a method to every histogram.

    Args:
        histograms: By tensor name.
        method: A key of `METHODS`.
        symmetric: True: the integers are int8, symmetric about zero. False: uint8 from end to end of the range.

    Returns:
        Ranges by tensor name.

    Raises:
        UsageError: The method is unknown.
    """
    if method not in METHODS:
        raise UsageError("unknown calibration method", got=repr(method), expected=" or ".join(METHODS))
    return {name: _chosen(histogram, method, symmetric) for name, histogram in histograms.items()}


@functools.lru_cache(maxsize=1024)
def _chosen(histogram: Histogram, method: str, symmetric: bool) -> Range:
    # The accuracy-aware search quantises one net dozens of times, from the same histograms.
    return METHODS[method](histogram, symmetric)
