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
    """Returns the range that clips nothing that calibration saw."""
    return Range(min(0.0, histogram.min), max(0.0, histogram.max))


def percentile(histogram: Histogram, share: float = PERCENTILE) -> Range:
    """Returns the range that holds `share` percent of the values.

    Half of what is cut lies at either end, as in ONNX Runtime's PercentileCalibrator
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html); ends are those of bins, outwards.

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
    # The first bin up to whose end more than `cut` values lie, and the first with at least all but `cut`.
    first = int(np.searchsorted(cumulative, cut, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - cut, side="left"))
    edges = histogram.edges
    lo = max(float(edges[first]), histogram.min)
    hi = min(float(edges[last + 1]), histogram.max)
    return Range(min(0.0, lo), max(0.0, hi))


# A method is told whether integers are symmetric about zero; the first three give the same range for either kind.
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
        symmetric: Whether the integers are int8, symmetric about zero, instead of uint8 from end to end of the range.

    Returns:
        Ranges by tensor name.

    Raises:
        UsageError: There is no such method.
    """
    if method not in METHODS:
        raise UsageError("unknown calibration method", got=repr(method), expected=" or ".join(METHODS))
    return {name: _chosen(histogram, method, symmetric) for name, histogram in histograms.items()}


@functools.lru_cache(maxsize=1024)
def _chosen(histogram: Histogram, method: str, symmetric: bool) -> Range:
    # Planning quantises one net dozens of times, by the same histograms.
    return METHODS[method](histogram, symmetric)
