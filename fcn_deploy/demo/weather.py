"""The weather of a scene: what the sun, the sky and the air do to the colours of things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.demo.camera import Camera
from fcn_deploy.demo.canvas import Canvas
from fcn_deploy.demo.textures import ROUGH, SMOOTH, Array, Noise, smoothstep

Color = tuple[float, float, float]


def vary(rng: np.random.Generator, color: Sequence[float], brightness: float, hue: float) -> Color:
    """Returns a colour made randomly brighter or darker as a whole, and each channel a little by itself."""
    gain = np.exp(rng.normal(0, brightness)) * np.exp(rng.normal(0, hue, 3))
    red, green, blue = (float(channel) for channel in np.asarray(color) * gain)
    return red, green, blue


@dataclass(frozen=True)
class Weather:
    """Light and air.

    Attributes:
        sun: Strength of direct light, 0 under clouds to 1.
        side: Where the sun stands: -1 left of the road, 1 right.
        ambient: Colour of the light from the sky.
        direct: Colour of the light from the sun.
        zenith: Colour of the sky overhead.
        haze: Colour of the sky at the horizon, and of the air before far things.
        density: Of the air: what is `1 / density` metres away keeps 37% of its own colour.
        clouds: Cover, 0..1.
        wet: How much the ground mirrors the sky, 0..1.
    """

    sun: float
    side: int
    ambient: Color
    direct: Color
    zenith: Color
    haze: Color
    density: float
    clouds: float
    wet: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Weather:
        """Returns a clear day, an overcast one, an evening, dusk or fog."""
        kind = rng.choice(["clear", "overcast", "evening", "dusk", "fog"], p=[0.36, 0.28, 0.16, 0.1, 0.1])
        side = int(rng.choice([-1, 1]))
        density = np.exp(rng.uniform(np.log(1 / 900), np.log(1 / 200)))
        match kind:
            case "clear":
                sun, clouds, wet = rng.uniform(0.6, 1), rng.uniform(0, 0.6), 0.0
                ambient, direct = (0.50, 0.54, 0.60), (0.75, 0.70, 0.62)
                zenith, haze = (0.30, 0.50, 0.82), (0.72, 0.82, 0.92)
            case "overcast":
                sun, clouds, wet = rng.uniform(0, 0.15), rng.uniform(0.6, 1), rng.choice([0, rng.uniform(0.1, 0.5)])
                ambient, direct = (0.72, 0.74, 0.77), (0.6, 0.6, 0.6)
                zenith, haze = (0.66, 0.70, 0.75), (0.82, 0.84, 0.86)
            case "evening":
                sun, clouds, wet = rng.uniform(0.5, 0.9), rng.uniform(0, 0.7), 0.0
                ambient, direct = (0.46, 0.44, 0.48), (0.85, 0.60, 0.36)
                zenith, haze = (0.38, 0.46, 0.66), (0.94, 0.76, 0.56)
            case "dusk":
                sun, clouds, wet = 0.0, rng.uniform(0, 0.8), rng.choice([0, rng.uniform(0.1, 0.5)])
                ambient, direct = (0.42, 0.44, 0.53), (0, 0, 0)
                zenith, haze = (0.24, 0.29, 0.46), (0.56, 0.50, 0.53)
            case _:
                sun, clouds, wet = 0.0, 1.0, rng.uniform(0, 0.3)
                ambient, direct = (0.72, 0.72, 0.73), (0, 0, 0)
                zenith, haze = (0.74, 0.76, 0.78), (0.80, 0.81, 0.82)
                density = rng.uniform(1 / 120, 1 / 45)
        return cls(
            sun=float(sun),
            side=side,
            ambient=vary(rng, ambient, 0.1, 0.02),
            direct=direct,
            zenith=vary(rng, zenith, 0.12, 0.06),
            haze=vary(rng, haze, 0.05, 0.03),
            density=float(density),
            clouds=float(clouds),
            wet=float(wet),
        )

    def on(self, facing: float | NDArray[Any]) -> Array:
        """Returns the light that falls on a surface.

        Args:
            facing: Cosine between the surface's normal and the sun, any shape; below 0 it is in its own shadow.

        Returns:
            float32 [..., 3], to multiply colours with.
        """
        direct = self.sun * np.maximum(0, np.asarray(facing, np.float32))[..., None]
        return (np.asarray(self.ambient, np.float32) + direct * np.asarray(self.direct, np.float32)).astype(np.float32)

    def paint_sky(self, canvas: Canvas, camera: Camera, noise: Noise, rng: np.random.Generator) -> None:
        """Paints the whole canvas with sky; its label is 0, which a new canvas has everywhere."""
        rows = np.arange(camera.height, dtype=np.float32)[:, None]
        climb = np.clip((camera.horizons[None, :] - rows) / camera.focal, 0, None).astype(np.float32)
        zenith, haze = np.asarray(self.zenith, np.float32), np.asarray(self.haze, np.float32)
        sky = haze + (zenith - haze) * smoothstep(0, rng.uniform(0.4, 0.9), climb)[..., None]
        # A layer of clouds at one height crowds together towards the horizon, as the ground does.
        layer = 12 / (climb + 0.12)
        puffs = noise.at(SMOOTH, camera.rays[None, :] * layer * 2, layer * 4) + 0.4 * noise.at(
            ROUGH, camera.rays[None, :] * layer * 5, layer * 9
        )
        edge = 1.6 - 2.6 * self.clouds
        cover = smoothstep(edge, edge + 1.2, puffs) * (0.25 + 0.75 * smoothstep(0.02, 0.2, climb))
        lit = np.asarray(self.ambient, np.float32) * 1.15 + self.sun * 0.35 * np.asarray(self.direct, np.float32)
        underside = 1 - 0.16 * smoothstep(-0.5, 2.5, puffs + 0.3 * noise.at(SMOOTH, layer * 3, layer * 3))
        cloud = np.minimum(lit, 1.0) * underside[..., None]
        canvas.light[...] = sky + (cloud - sky) * (0.9 * cover[..., None])

    def paint_haze(self, canvas: Canvas) -> None:
        """Veils everything but the sky by its distance."""
        veil = 1 - np.exp(-np.minimum(canvas.depth, 1e4) * self.density)
        veil[np.isinf(canvas.depth)] = 0
        canvas.light += (np.asarray(self.haze, np.float32) - canvas.light) * veil[..., None]
