"""The camera of a scene: where a point of the street lands on the sensor, and what lens and sensor do to light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fcn_deploy.demo.textures import SMOOTH, WHITE, Array, Noise

# In metres. Projections of nearer points grow without limit, so everything closer to the lens is cut off here.
NEAR = 1.2
FAR = 400.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over a street that bends.

    The street's frame: x metres to the right of the road's middle, y up from the ground, z ahead along the road.

    Attributes:
        height: Of the image in pixels.
        width: Of the image in pixels.
        focal: Focal length in pixels.
        center: Column of the vanishing point.
        horizon: Row of the horizon at that column.
        tilt: Rows the horizon falls from one column to the next.
        elevation: Of the lens above the ground, in metres.
        offset: Of the lens to the right of the road's middle, in metres.
        bend: Curvature of the road: it swerves by `bend * z**2` metres.
    """

    height: int
    width: int
    focal: float
    center: float
    horizon: float
    tilt: float
    elevation: float
    offset: float
    bend: float

    @classmethod
    def random(cls, rng: np.random.Generator, height: int, width: int, half_road: float) -> Camera:
        """Returns a camera on or beside a road that is `half_road` metres wide to each side."""
        return cls(
            height=height,
            width=width,
            focal=rng.uniform(0.75, 1.25) * width,
            center=width * rng.uniform(0.35, 0.65),
            horizon=height * rng.uniform(0.32, 0.56),
            tilt=rng.normal(0, 0.012),
            elevation=rng.uniform(1.2, 2.6),
            offset=half_road * rng.uniform(-0.3, 0.75),
            bend=rng.normal(0, 0.0016),
        )

    @property
    def rays(self) -> NDArray[np.floating]:
        """Metres to the right for each metre ahead, for each column: float64 [width]."""
        return (np.arange(self.width) + 0.5 - self.center) / self.focal

    @property
    def horizons(self) -> NDArray[np.floating]:
        """Row of the horizon in each column: float64 [width]."""
        return self.horizon + self.tilt * (np.arange(self.width) + 0.5 - self.center)

    def lateral(self, x: NDArray[Any] | float, z: NDArray[Any] | float) -> NDArray[Any]:
        """Returns metres to the right of the optical axis of a point of the street."""
        return np.asarray(x) - self.offset + self.bend * np.asarray(z) ** 2

    def project(self, x: NDArray[Any] | float, y: NDArray[Any] | float, z: NDArray[Any] | float) -> NDArray[np.float64]:
        """Projects points of the street.

        Args:
            x: Metres to the right of the road's middle.
            y: Metres above the ground.
            z: Metres ahead; clamped to `NEAR`.

        Returns:
            float64 [..., 2]: column and row.
        """
        z = np.maximum(z, NEAR)
        columns = self.center + self.focal * self.lateral(x, z) / z
        horizons = self.horizon + self.tilt * (columns - self.center)
        rows = horizons + self.focal * (self.elevation - np.asarray(y)) / z
        points = np.empty((*np.shape(rows), 2))
        points[..., 0], points[..., 1] = columns, rows
        return points


@dataclass(frozen=True)
class Lens:
    """What lens and sensor do to the light of a scene.

    Attributes:
        exposure: Gain.
        gamma: Exponent of the tone curve; above 1 the mid-tones darken.
        saturation: 0 is grey, 1 leaves colours alone.
        tint: Gain of each channel: the error of the white balance.
        blur: Standard deviation in pixels.
        vignette: Share of the light lost in the corners.
        grain: Standard deviation of the sensor's noise at full brightness, in 0..1.
    """

    exposure: float
    gamma: float
    saturation: float
    tint: tuple[float, float, float]
    blur: float
    vignette: float
    grain: float

    @classmethod
    def random(cls, rng: np.random.Generator, width: int) -> Lens:
        """Returns a lens of any quality for images of `width` pixels."""
        warmth = rng.normal(0, 0.06)
        return cls(
            exposure=float(np.exp(rng.normal(0.1, 0.18))),
            gamma=float(np.exp(rng.normal(-0.22, 0.16))),
            saturation=rng.uniform(0.55, 1.25),
            tint=(1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth),
            blur=rng.uniform(0.35, 0.95) * max(1.0, width / 384),
            vignette=rng.uniform(0, 0.35),
            grain=rng.uniform(0.005, 0.035),
        )

    def develop(self, light: Array, noise: Noise) -> NDArray[np.uint8]:
        """Turns light into a picture.

        Args:
            light: float32 [H, W, 3], about 0..1, changed in place.
            noise: The scene's.

        Returns:
            uint8 [H, W, 3], RGB.
        """
        height, width = light.shape[:2]
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        falloff = 1 - self.vignette * (rows**2 + columns**2) / 2
        falloff *= 1 + 0.02 * noise.screen(SMOOTH, height, width, scale=2)
        grey = light.mean(-1, keepdims=True)
        light -= grey
        light *= self.saturation
        light += grey
        light *= falloff[..., None] * (self.exposure * np.asarray(self.tint, np.float32))
        np.clip(light, 0, 1, out=light)
        np.power(light, self.gamma, out=light)
        picture = Image.fromarray((light * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(self.blur))
        pixels = np.asarray(picture, np.float32)
        # Photons arrive at random, so the noise grows with the root of the light; the constant stands for the read-out.
        amplitude = 255 * self.grain * np.sqrt(0.15 + 0.85 * pixels.mean(-1) / 255)
        grain = np.stack([noise.screen(WHITE, height, width) for _ in range(3)], -1)
        noisy: NDArray[np.uint8] = np.clip(pixels + amplitude[..., None] * grain + 0.5, 0, 255).astype(np.uint8)
        return noisy
