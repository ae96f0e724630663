"""The layout of a street, and its ground: road, sidewalks and verges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.demo.camera import FAR, Camera
from fcn_deploy.demo.canvas import ROAD, SIDEWALK, VEGETATION, Canvas
from fcn_deploy.demo.textures import FINE, ROUGH, SMOOTH, WHITE, Array, Noise, smoothstep, stripe
from fcn_deploy.demo.weather import Weather, vary

_GROUND_TONES = {
    "asphalt": (0.42, 0.42, 0.43),
    "slab": (0.58, 0.56, 0.53),
    "brick": (0.56, 0.43, 0.38),
    "grass": (0.30, 0.42, 0.18),
}


@dataclass(frozen=True)
class Street:
    """The layout of a street; metres from the road's middle, left negative.

    Attributes:
        road: Where the road's two edges are.
        walk: Where the sidewalks' outer edges are.
        house: Where the houses stand.
        verge: Whether what lies between sidewalk and houses is grass, on the left and on the right.
        crossing: From where to where, in metres ahead, another road crosses; None without one.
    """

    road: tuple[float, float]
    walk: tuple[float, float]
    house: tuple[float, float]
    verge: tuple[bool, bool]
    crossing: tuple[float, float] | None

    @classmethod
    def random(cls, rng: np.random.Generator) -> Street:
        """Returns anything between an alley and an avenue."""
        half = rng.uniform(2.8, 6.5)
        road = (-half, half)
        walk_width = np.where(rng.random(2) < 0.08, 0.0, rng.uniform(1.4, 4.5, 2))
        setback = np.where(rng.random(2) < 0.4, 0.0, rng.uniform(0.5, 6, 2))
        left, right = half + walk_width
        start = rng.uniform(10, 35)
        return cls(
            road=road,
            walk=(-float(left), float(right)),
            house=(-float(left + setback[0]), float(right + setback[1])),
            verge=(bool(rng.random() < 0.6), bool(rng.random() < 0.6)),
            crossing=(start, start + rng.uniform(6, 12)) if rng.random() < 0.3 else None,
        )


def paint_ground(
    canvas: Canvas, camera: Camera, street: Street, weather: Weather, noise: Noise, rng: np.random.Generator
) -> None:
    """Paints road, sidewalks and verges up to the horizon."""
    top = max(0, int(min(camera.horizons[0], camera.horizons[-1])))
    if top >= camera.height:
        return
    below = np.arange(top, camera.height)[:, None] + 0.5 - camera.horizons[None, :]
    seen = below > camera.focal * camera.elevation / FAR
    z = camera.focal * camera.elevation / np.where(seen, below, np.inf).clip(1e-6)
    z = np.where(seen, z, FAR).astype(np.float32)
    x = (camera.rays[None, :] * z + camera.offset - camera.bend * z**2).astype(np.float32)
    ground = _Ground(x, z, z / camera.focal, z**2 / (camera.focal * camera.elevation), noise, rng)

    on_road = (x > street.road[0]) & (x < street.road[1])
    if street.crossing is not None:
        on_road |= (z > street.crossing[0]) & (z < street.crossing[1])
    on_verge = ((x < street.walk[0]) & street.verge[0]) | ((x > street.walk[1]) & street.verge[1])
    on_verge &= ~on_road
    color = np.where(on_road[..., None], ground.asphalt(street), ground.pavement(street))
    color = np.where(on_verge[..., None], ground.grass(), color)
    color *= ground.sunlight(street, weather)
    if weather.wet:
        mirror = weather.wet * smoothstep(-0.5, 1.5, ground.sample(SMOOTH, 0.06)) * on_road
        glare = np.asarray(weather.haze, np.float32) * (1 + 0.1 * ground.sample(ROUGH, 0.02))[..., None]
        color = color * (1 - 0.35 * weather.wet) + (glare - color) * 0.6 * mirror[..., None]
    labels = np.where(on_road, ROAD, np.where(on_verge, VEGETATION, SIDEWALK))
    canvas.light[top:] = np.where(seen[..., None], color, canvas.light[top:])
    canvas.labels[top:] = np.where(seen, labels, canvas.labels[top:])
    canvas.depth[top:] = np.where(seen, z, canvas.depth[top:])


class _Ground:
    """The materials of the ground, at the points that the pixels see: all arrays are [rows, W]."""

    def __init__(
        self,
        x: NDArray[Any],
        z: NDArray[Any],
        across: NDArray[Any],
        along: NDArray[Any],
        noise: Noise,
        rng: np.random.Generator,
    ) -> None:
        self.x, self.z = x, z
        self.across, self.along = across, along  # what a pixel spans, in metres
        self._noise, self._rng = noise, rng

    def sample(self, slope: float, texel: float) -> Array:
        """Noise that lies on the ground, `texel` metres to the texel, fading where pixels outgrow it."""
        fade = np.minimum(1, 8 * texel / self.along) if slope < SMOOTH else 1
        return (self._noise.at(slope, self.x / texel, self.z / texel) * fade).astype(np.float32)

    def _grain(self) -> Array:
        return self._noise.screen(FINE, *self.x.shape)

    def asphalt(self, street: Street) -> Array:
        rng = self._rng
        tone = vary(rng, _GROUND_TONES["asphalt"], 0.22, 0.03)
        value = 1 + 0.05 * self._grain() + 0.05 * self.sample(ROUGH, 0.03) + 0.07 * self.sample(SMOOTH, 0.08)
        patches = smoothstep(0.9, 1.0, self.sample(SMOOTH, rng.uniform(0.04, 0.12)))
        value *= 1 - rng.uniform(-0.1, 0.25) * patches
        seams = np.abs(self.sample(SMOOTH, 0.05)) < 0.03 * np.minimum(1, 0.1 / self.along)
        value *= 1 - rng.uniform(0, 0.35) * seams
        lane = street.road[1] / 2
        for wheel in (-0.8, 0.8):
            value *= 1 - 0.07 * np.exp(-(((np.abs(self.x) - lane - wheel) / 0.35) ** 2))
        color = value[..., None] * np.asarray(tone, np.float32)
        paint = self._markings(street)[..., None]
        white = np.asarray((0.85, 0.85, 0.83) if rng.random() < 0.85 else (0.85, 0.68, 0.25), np.float32)
        painted: Array = (color + (white - color) * paint).astype(np.float32)
        return painted

    def _markings(self, street: Street) -> Array:
        rng = self._rng
        left, right = street.road
        paint = np.zeros(self.x.shape, np.float32)
        period, share = rng.uniform(5, 10), rng.uniform(0.35, 0.6)
        dashes = (self.z + rng.uniform(0, period)) % period < share * period
        style = rng.random()
        if style < 0.75:
            middle = stripe(self.x, 0.0, 0.15, self.across)
            paint = middle if style < 0.2 else middle * dashes
        if right > 4.8 and rng.random() < 0.6:
            for lane in (left / 2, right / 2):
                paint = np.maximum(paint, stripe(self.x, lane, 0.13, self.across) * dashes)
        if rng.random() < 0.5:
            inset = rng.uniform(0.2, 0.5) if rng.random() < 0.6 else 2.2
            for edge in (left + inset, right - inset):
                paint = np.maximum(paint, stripe(self.x, edge, 0.12, self.across))
        if street.crossing is not None:
            between = (self.z > street.crossing[0] - 0.5) & (self.z < street.crossing[1] + 0.5)
            paint = np.where(between, 0, paint)
        if street.crossing is not None or rng.random() < 0.25:
            near = rng.uniform(6, 16) if street.crossing is None else street.crossing[0] - 4.5
            zebra = (self.z > near) & (self.z < near + 3)
            bars = stripe((self.x - left) % 1.0, 0.5, 0.5, self.across)
            paint = np.where(zebra, bars, paint)
        wear = smoothstep(-2.2, -0.2, self.sample(ROUGH, 0.02) + rng.normal(0.4, 0.5))
        return paint * wear * rng.uniform(0.6, 1)

    def pavement(self, street: Street) -> Array:
        rng = self._rng
        material = rng.choice(["slab", "brick", "asphalt"], p=[0.55, 0.2, 0.25])
        tone = np.asarray(vary(rng, _GROUND_TONES[str(material)], 0.18, 0.04), np.float32)
        value = 1 + 0.05 * self._grain() + 0.06 * self.sample(ROUGH, 0.03) + 0.06 * self.sample(SMOOTH, 0.1)
        if material != "asphalt":
            tile = rng.uniform(0.4, 1.0) if material == "slab" else rng.uniform(0.2, 0.35)
            joint = 0.03
            for coordinate, span in ((self.x, self.across), (self.z, self.along)):
                value -= 0.25 * stripe(coordinate % tile, tile / 2, joint, span)
            cells = self._noise.at(WHITE, self.x / tile, self.z / tile)
            value += 0.05 * cells * np.minimum(1, tile / self.along)
        color = value[..., None] * tone
        curb = np.zeros(self.x.shape, np.float32)
        for edge, side in zip(street.road, (-1, 1), strict=True):
            curb = np.maximum(curb, stripe(self.x, edge + side * 0.1, 0.2, self.across))
        kerbstone = tone * rng.uniform(0.75, 1.35)
        edged: Array = (color + (kerbstone - color) * curb[..., None]).astype(np.float32)
        return edged

    def grass(self) -> Array:
        tone = np.asarray(vary(self._rng, _GROUND_TONES["grass"], 0.15, 0.08), np.float32)
        value = 1 + 0.14 * self._grain() + 0.14 * self.sample(ROUGH, 0.03) + 0.1 * self.sample(SMOOTH, 0.1)
        green: Array = (value[..., None] * tone).astype(np.float32)
        return green

    def sunlight(self, street: Street, weather: Weather) -> Array:
        """Light on the ground: the houses on the sun's side throw shadows across it, trees throw dapples."""
        rng = self._rng
        if not weather.sun:
            return weather.on(np.zeros(self.x.shape))
        wall = street.house[1] if weather.side > 0 else -street.house[0]
        reach = rng.uniform(-2, 1.7 * wall)
        # Rooflines change from house to house, and so does the edge of their shadow.
        roofs = 2.5 * self._noise.at(WHITE, np.zeros_like(self.z), self.z / rng.uniform(8, 20))
        edge = wall - np.maximum(0, reach + roofs)
        softness = 0.15 + self.across
        lit = 1 - smoothstep(-0.5, 0.5, (weather.side * self.x - edge) / softness)
        if rng.random() < 0.4:
            lit *= smoothstep(-0.4, 0.5, self.sample(ROUGH, 0.12) + rng.uniform(0, 1.2))
        return weather.on(0.8 * lit)
