"""From a histogram to a range: the calibration methods, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fcn_deploy.errors import UsageError
from fcn_deploy.quant.histogram import Histogram

PERCENTILE = 99.99


@dataclass(frozen=True)
class Range:
    """The values that a quantised tensor can represent; what lies outside is clipped.

    Attributes:
        lo: At most 0, for zero must be representable.
        hi: At least 0.
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not self.lo <= 0 <= self.hi:
            raise UsageError("bad range", got=f"{self.lo} to {self.hi}", expected="lo <= 0 <= hi")


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


METHODS: Mapping[str, Callable[[Histogram], Range]] = {"minmax": min_max, "percentile": percentile}


def choose(histograms: Mapping[str, Histogram], method: str) -> dict[str, Range]:
    """Applies a method to every histogram.

    Args:
        histograms: By tensor name.
        method: A key of `METHODS`.

    Returns:
        Ranges by tensor name.

    Raises:
        UsageError: There is no such method.
    """
    if method not in METHODS:
        raise UsageError("unknown calibration method", got=repr(method), expected=" or ".join(METHODS))
    return {name: METHODS[method](histogram) for name, histogram in histograms.items()}
