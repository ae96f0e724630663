"""Intervals of a figure that is measured on a sample of images, by percentile bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13: images are drawn with replacement, as many as
there are; the figure of each draw is computed, and the interval lies between the 2.5th and the 97.5th percentile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)


def draws(images: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Draws images with replacement.

    Args:
        images: How many there are.
        resamples: How many draws.
        seed: The same draws come of the same seed.

    Returns:
        int64 [resamples, images]: how often each image is in a draw; rows add up to `images`.
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def interval(figures: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the lower and the upper end of the 95% interval.

    Args:
        figures: float64 [resamples], of each draw; NaN for one on which it is not defined.
    """
    low, high = np.nanpercentile(figures, _PERCENTILES)
    return float(low), float(high)
