"""What closes a street in: houses, hedges and woods, as upright walls along its sides and across its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.demo.camera import NEAR, Camera
from fcn_deploy.demo.canvas import BUILDING, VEGETATION, Canvas
from fcn_deploy.demo.street import Street
from fcn_deploy.demo.textures import FINE, ROUGH, SMOOTH, WHITE, Array, Noise, stripe
from fcn_deploy.demo.weather import Color, Weather, vary

LEAVES: tuple[Color, ...] = ((0.25, 0.38, 0.14), (0.19, 0.31, 0.13), (0.36, 0.44, 0.18), (0.50, 0.38, 0.14))
_FACADES: tuple[Color, ...] = (
    (0.62, 0.58, 0.52), (0.55, 0.36, 0.29), (0.72, 0.69, 0.63), (0.45, 0.45, 0.46), (0.66, 0.55, 0.40),
    (0.40, 0.33, 0.30), (0.60, 0.62, 0.65),
)  # fmt: skip

Skin = Callable[[Array, Array, Array, Array], tuple[Array, NDArray[np.bool_] | None]]


@dataclass(frozen=True)
class Wall:
    """An upright surface over a straight line of the ground.

    Attributes:
        start: x and z of one end.
        end: x and z of the other.
        height: In metres.
        facing: Cosine between its normal and the sun.
        label: Its class.
        skin: Gives colours: from metres along and up, [1, w] and [h, w], and what a pixel spans of each, to
            float32 [h, w, 3], and a mask of the wall's pixels (None: all).
    """

    start: tuple[float, float]
    end: tuple[float, float]
    height: float
    facing: float
    label: int
    skin: Skin

    @property
    def distance(self) -> float:
        """Metres to the nearer end: nearer walls are painted first, since they hide most of the farther ones."""
        return min(self.start[1], self.end[1])

    def paint(self, canvas: Canvas, camera: Camera, weather: Weather) -> None:
        """Paints what of the wall is in the picture."""
        (x1, z1), (x2, z2) = self.start, self.end
        x1, x2 = float(camera.lateral(x1, z1)), float(camera.lateral(x2, z2))
        rays = camera.rays
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (rays * z1 - x1) / ((x2 - x1) - rays * (z2 - z1))
            z = z1 + share * (z2 - z1)
            columns = np.flatnonzero((share >= 0) & (share <= 1) & (z > NEAR))
        if not columns.size:
            return
        left, right = int(columns[0]), int(columns[-1]) + 1
        share, z = share[left:right], z[left:right]
        horizons = camera.horizons[left:right]
        bottoms = horizons + camera.focal * camera.elevation / z
        tops = horizons + camera.focal * (camera.elevation - self.height) / z
        top, bottom = max(0, int(np.floor(tops.min()))), min(camera.height, int(np.ceil(bottoms.max())))
        if bottom <= top:
            return
        rows = np.arange(top, bottom)[:, None] + 0.5
        up = ((bottoms - rows) * (z / camera.focal)).astype(np.float32)
        depth = z.astype(np.float32)[None, :]
        there = (up >= 0) & (up <= self.height) & (depth < canvas.walls[top:bottom, left:right])
        seen = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
        if not seen[0].size:
            return
        # Most of a far wall is behind nearer ones: only the rectangle that still shows gets colours.
        top, left = top + int(seen[0][0]), left + int(seen[1][0])
        part = tuple(slice(int(places[0]), int(places[-1]) + 1) for places in seen)
        up, there, depth = up[part], there[part], depth[:, part[1]]
        along = (share * np.hypot(self.end[0] - self.start[0], z2 - z1)).astype(np.float32)
        tall = depth / camera.focal
        wide = np.abs(np.gradient(along))[None, part[1]] if along.size > 1 else tall
        color, solid = self.skin(along[None, part[1]], up, np.maximum(wide, 1e-3).astype(np.float32), tall)
        if solid is not None:
            there &= solid
        color *= weather.on(self.facing)
        # Corners and courtyards get less of the sky than roofs do.
        color *= (0.82 + 0.18 * np.minimum(1, up / 3))[..., None]
        canvas.paint(top, left, color, there.astype(np.float32), self.label, depth)
        nearest = canvas.walls[top : top + up.shape[0], left : left + up.shape[1]]
        nearest[...] = np.where(there, depth, nearest)


def facade(noise: Noise, rng: np.random.Generator, height: float, weather: Weather) -> Skin:
    """Returns the skin of a house: plaster or brick or glass, rows of windows, shops, a cornice."""
    base = np.asarray(vary(rng, _FACADES[rng.integers(len(_FACADES))], 0.2, 0.05), np.float32)
    glass_tower = rng.random() < 0.15 and height > 12
    floor, bay = rng.uniform(2.8, 3.8), rng.uniform(1.6, 4.2)
    wide, tall = (0.9, 0.85) if glass_tower else (rng.uniform(0.3, 0.65), rng.uniform(0.4, 0.65))
    glass = np.asarray(vary(rng, (0.20, 0.23, 0.27), 0.3, 0.05), np.float32)
    sky = np.asarray(weather.zenith, np.float32) * 0.9
    mirror = rng.uniform(0.4, 0.8) if glass_tower else rng.uniform(0.05, 0.5)
    frame = base * rng.uniform(0.7, 1.4)
    shop = rng.uniform(3, 4.5) if rng.random() < 0.4 else 0.0
    awning = np.asarray(vary(rng, (0.5, 0.35, 0.3), 0.4, 0.3), np.float32)
    bricks = rng.random() < 0.35
    stains, relief = rng.uniform(0.04, 0.12), rng.uniform(0, 0.12)
    shift = rng.uniform(0, bay)

    def skin(u: Array, v: Array, span_u: Array, span_v: Array) -> tuple[Array, None]:
        value = 1 + stains * noise.at(SMOOTH, u * 9, v * 5) + 0.05 * noise.at(ROUGH, u * 30, v * 30)
        if bricks:
            course = stripe(v % 0.25, 0.125, 0.05, np.broadcast_to(span_v, v.shape))
            value += 0.06 * noise.at(WHITE, u * 4 + np.floor(v * 4) * 0.5, v * 4) - 0.3 * course
        color = value[..., None] * base
        color *= (1 - relief * stripe(v % floor, 0.1, 0.3, span_v))[..., None]
        # Of a window that is smaller than a pixel only its average shade is left.
        crisp = np.clip(bay / (2.5 * span_u), 0, 1) * np.clip(floor / (2.5 * span_v), 0, 1)
        for share, shade_of in ((1.22, "frame"), (1.0, "pane")):
            covered = stripe((u + shift) % bay, bay / 2, bay * min(0.97, wide * share), span_u)
            covered = covered * stripe(v % floor, floor * 0.55, floor * min(0.95, tall * share), span_v)
            covered = covered * (v > shop) * crisp
            if shade_of == "frame":
                color += (frame - color) * covered[..., None]
                continue
            cells = noise.at(WHITE, (u + shift) / bay, v / floor)
            bright = mirror * (0.7 + 0.35 * cells + 0.3 * noise.at(SMOOTH, u * 3, v * 6))
            pane = glass + (sky - glass) * np.clip(bright, 0, 1)[..., None]
            curtains = (cells > 1.1)[..., None] * np.float32(0.25)
            color += (pane + curtains - color) * covered[..., None]
        if shop:
            window = stripe(u % (1.6 * bay), 0.8 * bay, 1.4 * bay, span_u) * (v > 0.5) * (v < shop - 0.9)
            wares = 0.85 + 0.35 * noise.at(ROUGH, u * 14, v * 14)
            color += (glass * wares[..., None] * 1.3 - color) * window[..., None]
            sign = (v > shop - 0.8) & (v < shop)
            color = np.where(sign[..., None], awning * (1 + 0.2 * noise.at(FINE, u * 8, v * 8))[..., None], color)
        color *= (1 - 0.3 * (v > height - 0.5) * np.clip(0.5 / span_v, 0, 1))[..., None]
        return color.astype(np.float32), None

    return skin


def foliage(noise: Noise, rng: np.random.Generator, height: float, ragged: float) -> Skin:
    """Returns the skin of a hedge or the edge of a wood, uneven at the top by the share `ragged` of its height."""
    tone = np.asarray(vary(rng, LEAVES[rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])], 0.15, 0.08), np.float32)
    depth = rng.uniform(0.18, 0.3)

    def skin(u: Array, v: Array, span_u: Array, span_v: Array) -> tuple[Array, NDArray[np.bool_]]:
        del span_u, span_v
        clumps, leaves = noise.at(ROUGH, u * 14, v * 14), noise.at(FINE, u * 40, v * 40)
        value = 1 + depth * clumps + 0.14 * leaves + 0.35 * (v / height - 0.6)
        edge = height * (1 - ragged * (0.5 + 0.35 * noise.at(SMOOTH, u * 8, v * 3) + 0.12 * clumps))
        color = np.maximum(value, 0.12)[..., None] * tone
        return color.astype(np.float32), v < edge

    return skin


def plan_walls(street: Street, weather: Weather, noise: Noise, rng: np.random.Generator) -> list[Wall]:
    """Returns what stands along both sides of the street and closes its end, in no order."""
    walls: list[Wall] = []
    for side, x in ((-1, street.house[0]), (1, street.house[1])):
        green = rng.choice([0.1, 0.3, 0.75], p=[0.5, 0.35, 0.15])
        storeys = rng.uniform(2, 6)
        z = rng.uniform(-10, 4)
        while z < 110:
            length = rng.uniform(7, 26)
            end = z + length
            if street.crossing is not None and z < street.crossing[1] + 2 and end > street.crossing[0] - 2:
                if street.crossing[0] - 2 - z > 4:
                    end = street.crossing[0] - 2
                else:
                    z = street.crossing[1] + 2
                    continue
            if end > NEAR + 0.5:
                walls += _block(side, x, (max(z, 0.4), end), green, storeys, weather, noise, rng)
            z = end + (rng.uniform(2, 8) if rng.random() < 0.3 else 0.0)
        if rng.random() < 0.25:
            hedge = rng.uniform(0.7, 2.2)
            begin = rng.uniform(1, 25)
            at = street.walk[0 if side < 0 else 1] + side * 0.3
            ends = ((at, begin), (at, begin + rng.uniform(5, 30)))
            skin = foliage(noise, rng, hedge, 0.15)
            walls.append(Wall(*ends, hedge, -0.5 * side * weather.side, VEGETATION, skin))
    return walls + _far_end(weather, noise, rng)


def _block(
    side: int, x: float, span: tuple[float, float], green: float, storeys: float, weather: Weather, noise: Noise,
    rng: np.random.Generator,
) -> list[Wall]:  # fmt: skip
    """One house or one group of trees: the wall along the street, and the one that looks back at the camera."""
    z, end = span
    along, back = 0.75 * max(0, -side * weather.side), 0.25
    x += side * (rng.uniform(0, 1.5) if rng.random() < 0.3 else 0.0)
    if rng.random() < green:
        height = rng.uniform(2.5, 11)
        skin = foliage(noise, rng, height, rng.uniform(0.15, 0.5))
        label = VEGETATION
    else:
        height = max(3.0, 3.2 * (storeys + rng.normal(0, 1.2)))
        skin = facade(noise, rng, height, weather)
        label = BUILDING
    return [
        Wall((x, z), (x, end), height, along, label, skin),
        Wall((x, z), (x + side * rng.uniform(8, 16), z), height, back, label, skin),
    ]


def _far_end(weather: Weather, noise: Noise, rng: np.random.Generator) -> list[Wall]:
    """A skyline across the whole view, so that the ground never meets the sky in a ruler's edge."""
    walls = []
    z, x = rng.uniform(115, 170), -160.0
    green = rng.uniform(0.1, 0.9)
    while x < 160:
        width = rng.uniform(8, 40)
        if rng.random() < green:
            height = rng.uniform(4, 14)
            walls.append(Wall((x, z), (x + width, z), height, 0.2, VEGETATION, foliage(noise, rng, height, 0.5)))
        elif rng.random() < 0.85:
            height = rng.uniform(5, 40)
            walls.append(Wall((x, z), (x + width, z), height, 0.2, BUILDING, facade(noise, rng, height, weather)))
        x += width
    return walls
