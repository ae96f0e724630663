"""The mean of each channel of a tensor, over images that come one at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import InputError


class MeanBuilder:
    """Accumulates values; `build` returns the means of all of them. Every pixel has the same weight.

    Sums are float64, so neither the number of images nor their order changes a mean by more than float64's rounding.
    """

    def __init__(self) -> None:
        self._sums: NDArray[np.float64] | None = None
        self._pixels = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Adds values.

        Args:
            values: float32 [N, C, H, W], finite, with the same C every time.
        """
        sums = values.sum(axis=(0, 2, 3), dtype=np.float64)
        self._sums = sums if self._sums is None else self._sums + sums
        self._pixels += values.size // values.shape[1]

    def build(self) -> NDArray[np.float64]:
        """Returns the means, float64 [C].

        Raises:
            InputError: Nothing has been added.
        """
        if self._sums is None:
            raise InputError("means of nothing", got="no values", expected="at least one value")
        return self._sums / self._pixels
