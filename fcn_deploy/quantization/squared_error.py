"""The mse method: the range that quantises a tensor with the least squared error, of clipping and of rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcn_deploy.artifacts.ranges import Histogram, Range
from fcn_deploy.quantization.params import AsymmetricUint8, SymmetricInt8

# Of what is left of the range: eight steps an octave, down to 1/256 of what was seen, and finer about the best of them.
_COARSE = 2.0 ** -(np.arange(65) / 8)
_FINE = 2.0 ** np.linspace(-1 / 8, 1 / 8, 33)
_SWEEPS = 3
# Scales are not rounded, or ranges that differ by little could not be told apart.
_SYMMETRIC, _ASYMMETRIC = SymmetricInt8(127, "float64"), AsymmetricUint8("float64")


def squared_error(histogram: Histogram, chosen: Range, *, symmetric: bool) -> float:
    """Returns the mean squared error of quantising a tensor, each bin standing for values at its centre.

    Args:
        histogram: Of the tensor.
        chosen: What is represented; zero exactly.
        symmetric: Whether to int8, -127..127 about zero, the wider side of the range counting for both; else to uint8,
            0..255 from end to end.
    """
    values = histogram.lo + histogram.width * (np.arange(len(histogram.counts)) + 0.5)
    if chosen.lo == chosen.hi:  # both are 0
        represented = np.zeros_like(values)
    else:
        params = (_SYMMETRIC if symmetric else _ASYMMETRIC).of_range(chosen)
        represented = params.dequantize(params.quantize(values))
    return float(np.square(values - represented) @ histogram.counts / histogram.counts.sum())


def least_squared_error(histogram: Histogram, symmetric: bool) -> Range:
    """Returns the range of least `squared_error`, no wider than what was seen.

    The ends are searched one after the other, several times over, for where the integers are asymmetric either moves
    the steps of both; where they are symmetric the two move together.

    Args:
        histogram: Of the tensor.
        symmetric: As for `squared_error`.
    """
    lo, hi = min(0.0, histogram.min), max(0.0, histogram.max)

    def error(low: float, high: float) -> float:
        return squared_error(histogram, Range(low, high), symmetric=symmetric)

    if symmetric:
        limit = _least(lambda end: error(max(lo, -end), min(hi, end)), max(-lo, hi))
        return Range(max(lo, -limit), min(hi, limit))
    low, high = lo, hi
    for _ in range(_SWEEPS if lo < 0 < hi else 1):
        high = _least(lambda end, low=low: error(low, end), hi)  # type: ignore[misc]
        low = 0.0 - _least(lambda end, high=high: error(-end, high), -lo)  # type: ignore[misc]
    return Range(low, high)


def _least(error: Callable[[float], float], most: float) -> float:
    """Returns the end, 0 < end <= most, of least error; 0 where most is 0, the largest of several equals."""
    if most == 0:
        return 0.0
    coarse = min(most * _COARSE, key=error)
    around = (coarse * _FINE)[::-1]
    return float(min([coarse, *around[around < most]], key=error))
