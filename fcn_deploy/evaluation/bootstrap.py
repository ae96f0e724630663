"""The 95% interval of a figure that is measured on a sample of images, by percentile bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13: as many images as the sample has are drawn with
replacement, again and again. The figure is computed for each draw; the interval goes from the 2.5th to the 97.5th
percentile of these figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)


def draws(images: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Draws images with replacement.

    Args:
        images: Number of images in the sample.
        resamples: Number of draws.
        seed: The same seed gives the same draws.

    Returns:
        int64 [resamples, images]: how often each image is in a draw; each row adds up to `images`.
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def interval(figures: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the lower and the upper end of the 95% interval.

    Args:
        figures: float64 [resamples], one of each draw; NaN for a draw on which the figure is not defined.
    """
    low, high = np.nanpercentile(figures, _PERCENTILES)
    return float(low), float(high)
