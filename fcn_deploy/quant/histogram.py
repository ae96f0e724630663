"""A histogram that grows with its data, in memory that does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import InputError

# Bin widths are powers of two, so scaling a float32 to bins is exact, zero is always an edge, and two bins merge into
# one of the next width without moving a count. The result is therefore the same in whatever order data comes.
MAX_BINS = 4096
_MIN_EXPONENT = -60
# Small enough for a block and its two work arrays to stay in a core's cache.
_BLOCK = 1 << 15


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        min: The smallest value seen.
        max: The largest value seen.
        lo: Lower edge of the first bin, at most 0.
        hi: Upper edge of the last bin, at least 0.
        counts: int64 [bins].
    """

    min: float
    max: float
    lo: float
    hi: float
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        edges = (self.lo, self.min, self.max, self.hi)
        if not all(map(math.isfinite, edges)) or list(edges) != sorted(edges) or not self.lo <= 0 <= self.hi:
            raise InputError(
                "bad histogram",
                got=f"lo {self.lo}, min {self.min}, max {self.max}, hi {self.hi}",
                expected="finite numbers in this order, 0 between lo and hi",
            )
        # The sum is taken in float, which cannot wrap around.
        good = self.lo < self.hi and self.counts.ndim == 1 and len(self.counts) and self.counts.min() >= 0
        if not good or not 0 < self.counts.sum(dtype=np.float64) < 2**63:
            raise InputError("bad histogram", got=f"counts {self.counts}", expected="counts of 0 or more, not all 0")

    @property
    def width(self) -> float:
        """Of one bin."""
        return (self.hi - self.lo) / len(self.counts)

    @property
    def edges(self) -> NDArray[np.float64]:
        """float64 [bins + 1]."""
        return np.linspace(self.lo, self.hi, len(self.counts) + 1)

    def to_json(self) -> dict[str, Any]:
        """Returns it as the JSON data of a ranges file."""
        return {
            "min": self.min,
            "max": self.max,
            "lo": self.lo,
            "hi": self.hi,
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Histogram:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
        """
        counts = np.asarray(data["counts"])
        if counts.dtype != np.int64:
            raise InputError("bad histogram", got=f"counts as {counts.dtype}", expected="integers below 2**63")
        return cls(float(data["min"]), float(data["max"]), float(data["lo"]), float(data["hi"]), counts)


class HistogramBuilder:
    """Accumulates values; `build` gives the histogram of all of them."""

    def __init__(self) -> None:
        self._min, self._max = math.inf, -math.inf
        self._exponent = _MIN_EXPONENT
        self._first = 0  # index of the first bin: it begins at first * 2**exponent
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
            raise InputError("an empty histogram", expected="at least one value")
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
        # Scaled down in float32, the smallest negative numbers would become zero and change bins.
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
