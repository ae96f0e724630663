"""Noise for surfaces: a few tiles with natural spectra, made once, that every scene samples at its own offsets."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

WHITE, FINE, ROUGH, SMOOTH = 0.0, 0.6, 1.1, 1.7  # slopes of the amplitude spectra, from grain to clouds

_TILE = 256
_TILES_PER_SLOPE = 4


@cache
def noise_tile(slope: float, index: int) -> Array:
    """Returns a tile of noise whose amplitude falls with the frequency to the power of `slope`.

    Many octaves at once, and without a seam: the inverse Fourier transform of a spectrum is periodic.

    Args:
        slope: 0 is white noise, 1 looks like foliage or plaster, 1.7 like clouds.
        index: Tiles of different index are independent.

    Returns:
        float32 [256, 256], mean 0, standard deviation 1, within -3..3.
    """
    rng = np.random.default_rng((index, round(slope * 1000)))
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((_TILE, _TILE))) / frequency**slope
    spectrum[0, 0] = 0.0
    tile = np.fft.irfft2(spectrum, s=(_TILE, _TILE))
    noise: Array = np.clip(tile / tile.std(), -3, 3).astype(np.float32)
    return noise


class Noise:
    """The noise of one scene: the shared tiles, read from places that the scene's seed chooses.

    Args:
        rng: The scene's generator.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def at(self, slope: float, u: NDArray[Any], v: NDArray[Any]) -> Array:
        """Samples noise at texture coordinates, a texel to the unit, nearest neighbour, wrapping around.

        Args:
            slope: Of the spectrum; see `noise_tile`.
            u: Float, horizontal coordinates, any range.
            v: Float, vertical coordinates; broadcasts with `u`.

        Returns:
            float32, of the broadcast shape, about -3..3. Every call reads another place.
        """
        tile, offset_u, offset_v = self._pick(slope)
        # A power of two makes the wrap a mask, which is also right for negative coordinates.
        rows = np.floor(v + offset_v).astype(np.int32) & (_TILE - 1)
        columns = np.floor(u + offset_u).astype(np.int32) & (_TILE - 1)
        values: Array = tile.ravel().take(rows * _TILE + columns)
        return values

    def screen(self, slope: float, height: int, width: int, scale: float = 1.0) -> Array:
        """Returns a rectangle of noise, `scale` pixels to the texel: float32 [height, width]."""
        tile, offset_u, offset_v = self._pick(slope)
        rows = (np.arange(height) / scale + offset_v).astype(np.int32) & (_TILE - 1)
        columns = (np.arange(width) / scale + offset_u).astype(np.int32) & (_TILE - 1)
        return tile.take(rows, 0).take(columns, 1)

    def _pick(self, slope: float) -> tuple[Array, int, int]:
        # One draw for all three numbers: a scene picks a hundred times, and a draw costs more than the arithmetic.
        rest, offset_u = divmod(int(self._rng.integers(_TILES_PER_SLOPE * _TILE * _TILE)), _TILE)
        index, offset_v = divmod(rest, _TILE)
        return noise_tile(slope, index), offset_u, offset_v


def smoothstep(low: float, high: float, x: NDArray[Any]) -> Array:
    """Returns 0 below `low`, 1 above `high` and a smooth ramp between, elementwise."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def stripe(x: NDArray[Any], center: float | NDArray[Any], width: float, footprint: NDArray[Any]) -> Array:
    """Returns how much of each pixel a stripe covers, so that thin lines fade with distance instead of flickering.

    Args:
        x: Float, coordinates across the stripe.
        center: Where the stripe is.
        width: Of the stripe, in the unit of `x`.
        footprint: What one pixel spans in that unit, positive.

    Returns:
        float32 0..1, of the broadcast shape.
    """
    inside = (width / 2 + footprint / 2 - np.abs(x - center)) / footprint
    share: Array = np.clip(inside, 0, np.minimum(1, width / footprint)).astype(np.float32)
    return share
