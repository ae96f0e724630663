"""A histogram whose range grows with its data, and whose memory does not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Histogram
from fcn_deploy.errors import InputError

# Bin widths are powers of two. So scaling a float32 to bins is exact, zero is always an edge, and two bins merge into
# one of the next width without moving a count. The result therefore does not depend on the order of the data.
MAX_BINS = 4096
_MIN_EXPONENT = -60
# A block of so many values and its two work arrays fit into the cache of a core.
_BLOCK = 1 << 15


class HistogramBuilder:
    """Accumulates values; `build` returns the histogram of all of them."""

    def __init__(self) -> None:
        self._min, self._max = math.inf, -math.inf
        self._exponent = _MIN_EXPONENT
        self._first = 0  # the index of the first bin, which begins at first * 2**exponent
        self._counts = np.zeros(1, np.int64)
        self._indices = np.empty(_BLOCK, np.intp)

    def add(self, values: NDArray[np.float32]) -> None:
        """Adds values.

        Args:
            values: float32, any shape, not empty.

        Raises:
            InputError: A value is infinite or not a number.
        """
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("values that are not finite", got=f"{low} to {high}", expected="finite float32")
        self._min, self._max = min(self._min, low), max(self._max, high)
        self._grow()
        self._count(flat)

    def build(self) -> Histogram:
        """Returns the histogram of everything added.

        Raises:
            InputError: Nothing has been added.
        """
        if self._min > self._max:
            raise InputError("an empty histogram", got="no values", expected="at least one value")
        width = 2.0**self._exponent
        lo, hi = self._first * width, (self._first + len(self._counts)) * width
        return Histogram(self._min, self._max, lo, hi, self._counts.copy())

    def _grow(self) -> None:
        low, high = min(0.0, self._min), max(0.0, self._max)
        exponent = self._exponent
        while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= MAX_BINS:
            exponent += 1
        first, last = math.floor(low / 2.0**exponent), math.floor(high / 2.0**exponent)
        if (exponent, first, last - first + 1) == (self._exponent, self._first, len(self._counts)):
            return
        # Floor division by the power of two between the widths: an arithmetic shift.
        old = self._first + np.arange(len(self._counts)) >> (exponent - self._exponent)
        counts = np.zeros(last - first + 1, np.int64)
        np.add.at(counts, old - first, self._counts)
        self._exponent, self._first, self._counts = exponent, first, counts

    def _count(self, flat: NDArray[np.float32]) -> None:
        bins = len(self._counts)
        # Scaled down in float32, the smallest negative numbers would become zero and fall into another bin.
        dtype = np.float64 if self._first < 0 and self._exponent > 0 else np.float32
        scale, work = dtype(2.0**-self._exponent), np.empty(_BLOCK, dtype)
        for start in range(0, len(flat), _BLOCK):
            block = flat[start : start + _BLOCK]
            indices = self._indices[: len(block)]
            scaled = np.multiply(block, scale, out=work[: len(block)])
            if self._first < 0:  # otherwise truncation is floor
                np.floor(scaled, out=scaled)
                scaled -= dtype(self._first)
            np.copyto(indices, scaled, casting="unsafe")
            self._counts += np.bincount(indices, minlength=bins)
