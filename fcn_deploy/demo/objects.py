"""What stands and moves on the street besides cars: people, poles with their signs, trees."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.demo.camera import Camera
from fcn_deploy.demo.canvas import PEDESTRIAN, POLE, VEGETATION, Canvas, Sprite
from fcn_deploy.demo.textures import FINE, ROUGH, SMOOTH, Array, Noise, smoothstep
from fcn_deploy.demo.walls import LEAVES
from fcn_deploy.demo.weather import Color, Weather, vary

Points = NDArray[np.float64]


def tint(color: Color | NDArray[Any], light: Array, factor: float = 1.0) -> Color:
    """Returns a surface's colour, [3], under a light, [3]."""
    red, green, blue = (float(channel) for channel in np.asarray(color) * light * factor)
    return red, green, blue


@dataclass(frozen=True)
class Thing(ABC):
    """One object of the street.

    Attributes:
        x: Metres right of the road's middle.
        z: Metres ahead, to its middle.
    """

    x: float
    z: float

    def paint(self, canvas: Canvas, camera: Camera, weather: Weather, noise: Noise, rng: np.random.Generator) -> None:
        """Paints the object over what is farther away."""
        raise NotImplementedError

    def _finish(
        self, canvas: Canvas, sprite: Sprite, label: int, noise: Noise, texture: float, slope: float = ROUGH
    ) -> None:
        color, cover = sprite.layers()
        grain = noise.screen(slope, *cover.shape)
        canvas.paint(sprite.top, sprite.left, color * (1 + texture * grain)[..., None], cover, label, self.z)

    def _shadow(self, canvas: Canvas, camera: Camera, weather: Weather, half_width: float, half_length: float) -> None:
        # Even under clouds the ground right below a thing sees little sky; the sun draws the shadow out to a side.
        reach = weather.sun * 1.2 * half_width
        middle = self.x - weather.side * reach / 2
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        wide, deep = half_width * 1.15 + reach / 2, half_length * 1.1
        outline = camera.project(middle + wide * np.cos(angles), 0.0, self.z + deep * np.sin(angles))
        sprite = Sprite(canvas, outline)
        if not sprite.visible:
            return
        sprite.polygon(outline, (0.02, 0.02, 0.03))
        color, cover = sprite.layers()
        canvas.paint(sprite.top, sprite.left, color, cover * (0.45 + 0.25 * weather.sun), None, self.z)


@dataclass(frozen=True)
class Pedestrian(Thing):
    """A person who stands or walks."""

    def paint(self, canvas: Canvas, camera: Camera, weather: Weather, noise: Noise, rng: np.random.Generator) -> None:
        """Paints it, see `Thing.paint`."""
        tall = rng.uniform(1.0, 1.35) if rng.random() < 0.12 else rng.uniform(1.55, 1.95)
        girth = tall * rng.uniform(0.95, 1.25)

        def at(*points: tuple[float, float]) -> Points:
            metric = np.asarray(points, float)
            return camera.project(self.x + metric[:, 0] * girth, metric[:, 1] * tall, self.z)

        sprite = Sprite(canvas, at((-0.32, -0.02), (0.32, 1.04)))
        if not sprite.visible:
            return
        self._shadow(canvas, camera, weather, 0.3, 0.25)
        light = weather.on(rng.uniform(0.2, 0.8))
        cloth = tint(vary(rng, (0.36, 0.34, 0.36), 0.5, 0.35), light)
        legs = tint(vary(rng, (0.20, 0.21, 0.26), 0.5, 0.15), light)
        skin = tint(np.asarray((0.80, 0.58, 0.46)) * rng.uniform(0.4, 1.05), light)
        hair = tint(vary(rng, (0.20, 0.15, 0.11), 0.7, 0.15), light)
        dark = (cloth[0] * 0.75, cloth[1] * 0.75, cloth[2] * 0.75)
        pixel = camera.focal / self.z * girth
        stride, swing = rng.uniform(0.0, 0.16), rng.uniform(-0.12, 0.12)
        knee = rng.uniform(-0.02, 0.05)
        sprite.line(at((-0.04, 0.5), (-stride / 2 + knee, 0.26), (-stride, 0.02)), legs, 0.085 * pixel)
        sprite.line(at((0.04, 0.5), (stride / 2 + knee, 0.26), (stride, 0.02)), legs, 0.085 * pixel)
        for foot in (-stride, stride):
            sprite.line(at((foot - 0.02, 0.015), (foot + 0.05, 0.015)), (0.05, 0.05, 0.05), 0.035 * pixel)
        if rng.random() < 0.3:  # a coat or a skirt
            sprite.polygon(at((-0.09, 0.56), (-0.13, 0.3), (0.13, 0.3), (0.09, 0.56)), cloth)
        sprite.line(at((0.09, 0.79), (0.13 - swing, 0.62), (0.1 - 1.6 * swing, 0.46)), dark, 0.055 * pixel)
        sprite.polygon(
            at((-0.09, 0.48), (-0.12, 0.72), (-0.1, 0.82), (-0.03, 0.85), (0.03, 0.85), (0.1, 0.82), (0.12, 0.72),
               (0.09, 0.48)), cloth,
        )  # fmt: skip
        sprite.line(at((-0.09, 0.79), (-0.14 + swing, 0.62), (-0.11 + 1.6 * swing, 0.46)), dark, 0.06 * pixel)
        if rng.random() < 0.3:  # a rucksack or a bag
            bag = tint(vary(rng, (0.35, 0.25, 0.22), 0.4, 0.3), light)
            spot, size = ((0.0, 0.69), 0.1) if rng.random() < 0.5 else ((-0.15, 0.45), 0.08)
            sprite.disc(at(spot)[0], size * pixel, bag, 1.2)
        head = at((0.0, 0.925))[0]
        sprite.disc(head, 0.055 * pixel, skin, 1.3 * tall / girth)
        sprite.disc(head - (0, 0.03 * pixel), 0.056 * pixel, hair, 0.85)
        self._finish(canvas, sprite, PEDESTRIAN, noise, 0.12)


@dataclass(frozen=True)
class Pole(Thing):
    """A lamp post, a road sign, a traffic light or a bollard."""

    def paint(self, canvas: Canvas, camera: Camera, weather: Weather, noise: Noise, rng: np.random.Generator) -> None:
        """Paints it, see `Thing.paint`."""
        kind = rng.choice(["lamp", "sign", "light", "mast", "bollard"], p=[0.28, 0.32, 0.2, 0.12, 0.08])
        tall = {
            "lamp": rng.uniform(5, 8), "sign": rng.uniform(2.3, 3.2), "light": rng.uniform(2.8, 4),
            "mast": rng.uniform(7, 10), "bollard": 1.0,
        }[str(kind)]  # fmt: skip
        thick = rng.uniform(0.16, 0.3) if kind == "mast" else rng.uniform(0.1, 0.18)
        pixel = camera.focal / self.z
        toward = -1.0 if self.x > 0 else 1.0
        reach = 2.2

        def at(*points: tuple[float, float]) -> Points:
            metric = np.asarray(points, float)
            return camera.project(self.x + metric[:, 0], metric[:, 1], self.z)

        sprite = Sprite(canvas, at((-reach, 0), (reach, tall + 0.5)))
        if not sprite.visible:
            return
        light = weather.on(rng.uniform(0.1, 0.7))
        metal = vary(rng, (0.42, 0.43, 0.43) if kind != "mast" else (0.36, 0.30, 0.25), 0.35, 0.08)
        post = tint(metal, light)
        # Two thirds of a pixel would be all "shared" and never be owned by the pole.
        width = max(1.4, thick * pixel)
        sprite.line(at((0, 0), (0, tall)), post, width)
        sprite.line(at((0.3 * thick, 0), (0.3 * thick, tall)), tint(metal, light, 0.7), 0.35 * width)
        if kind == "lamp":
            sprite.line(at((0, tall), (toward * 0.5, tall + 0.3), (toward * 1.6, tall + 0.3)), post, 0.7 * width)
            lamp = at((toward * 1.2, tall + 0.22), (toward * 1.9, tall + 0.22), (toward * 1.8, tall + 0.42))
            sprite.polygon(lamp, tint((0.75, 0.74, 0.7), light))
        elif kind == "sign":
            self._sign(sprite, at, tall, pixel, light, rng)
        elif kind == "light":
            box = at((-0.2, tall - 1.0), (0.2, tall - 1.0), (0.2, tall), (-0.2, tall))
            sprite.polygon(box, tint((0.1, 0.11, 0.1), light))
            on = int(rng.integers(3))
            for index, lamp_color in enumerate(((0.2, 0.9, 0.45), (0.95, 0.7, 0.1), (0.95, 0.15, 0.1))):
                center = at((0, tall - 0.82 + 0.32 * index))[0]
                sprite.disc(center, 0.12 * pixel, lamp_color if index == on else (0.06, 0.06, 0.06))
        elif kind == "mast" and rng.random() < 0.6:
            sprite.line(at((-1, tall - 0.6), (1, tall - 0.6)), post, 0.6 * width)
        self._finish(canvas, sprite, POLE, noise, 0.06)

    def _sign(
        self, sprite: Sprite, at: Callable[..., Points], tall: float, pixel: float, light: Array,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        center, size = tall - 0.2, rng.uniform(0.3, 0.42)
        red, blue, white = (0.72, 0.10, 0.10), (0.10, 0.25, 0.62), (0.88, 0.88, 0.86)
        yellow, green = (0.85, 0.68, 0.12), (0.1, 0.4, 0.25)
        shape = rng.random()
        if shape < 0.4:
            rim, face = (red, white) if rng.random() < 0.6 else (blue, blue)
            sprite.disc(at((0, center))[0], size * pixel, tint(rim, light, 1.1))
            sprite.disc(at((0, center))[0], 0.72 * size * pixel, tint(face, light, 1.1))
            bar = at((-0.4 * size, center), (0.4 * size, center))
            sprite.line(bar, tint((0.2, 0.2, 0.2), light), 0.3 * size * pixel)
        elif shape < 0.65:
            point = 1 if rng.random() < 0.7 else -1
            for share, color in ((1.1, red), (0.65, white)):
                reach = size * share
                corners = ((0, reach * point), (reach, -0.7 * reach * point), (-reach, -0.7 * reach * point))
                sprite.polygon(at(*((x, center + y) for x, y in corners)), tint(color, light, 1.1))
        else:
            face = (blue, yellow, white, green)[rng.integers(4)]
            wide, high = size * rng.uniform(0.7, 1.8), size * rng.uniform(0.7, 1.3)
            for share, color in ((1.0, white), (0.86, face)):
                x, y = wide * share, high * share
                quad = ((-x, center - y), (x, center - y), (x, center + y), (-x, center + y))
                sprite.polygon(at(*quad), tint(color, light, 1.05))


@dataclass(frozen=True)
class Tree(Thing):
    """A tree with its trunk and crown, or a bush."""

    def paint(self, canvas: Canvas, camera: Camera, weather: Weather, noise: Noise, rng: np.random.Generator) -> None:
        """Paints it, see `Thing.paint`."""
        bush = rng.random() < 0.25
        trunk = 0.0 if bush else rng.uniform(1.8, 3.2)
        wide = rng.uniform(0.5, 1.1) if bush else rng.uniform(1.2, 3)
        high = wide * rng.uniform(0.6, 1.0) if bush else wide * rng.uniform(0.8, 1.5)
        middle = trunk + 0.85 * high
        reach = 1.15 * np.asarray([wide, high])
        box = camera.project(self.x + reach[0] * np.asarray([-1, 1]), np.asarray([0.0, middle + reach[1]]), self.z)
        if not bush:
            top = self.x + rng.normal(0, 0.15)
            stem = camera.project(np.asarray([self.x, top]), np.asarray([0.0, middle]), self.z)
            sprite = Sprite(canvas, np.concatenate([stem - np.asarray([3, 0]), stem + np.asarray([3, 0])]))
            if sprite.visible:
                bark = tint(vary(rng, (0.30, 0.25, 0.20), 0.2, 0.08), weather.on(0.3))
                sprite.line(stem, bark, max(1.5, rng.uniform(0.18, 0.4) * camera.focal / self.z))
                self._finish(canvas, sprite, VEGETATION, noise, 0.15)
        self._crown(canvas, camera, weather, noise, rng, box, (middle, wide, high))

    def _crown(
        self, canvas: Canvas, camera: Camera, weather: Weather, noise: Noise, rng: np.random.Generator, box: Points,
        form: tuple[float, float, float],
    ) -> None:  # fmt: skip
        """Paints the leaves; the form is the height of the middle, and half the width and height, in metres."""
        middle, wide, high = form
        low, top = box.min(0), box.max(0)
        left, upper = max(0, int(low[0])), max(0, int(low[1]))
        right, lower = min(camera.width, int(top[0]) + 1), min(camera.height, int(top[1]) + 1)
        if right <= left or lower <= upper:
            return
        pixel = camera.focal / self.z
        center = camera.project(self.x, middle, self.z)
        u = ((np.arange(left, right) + 0.5 - center[0]) / pixel).astype(np.float32)[None, :]
        v = ((center[1] - np.arange(upper, lower) - 0.5) / pixel).astype(np.float32)[:, None]
        clumps, leaves = noise.at(ROUGH, u * 16, v * 16), noise.at(FINE, u * 45, v * 45)
        radius = np.hypot(u / wide, v / high) + 0.2 * noise.at(SMOOTH, u * 12, v * 12) + 0.05 * leaves
        holes = smoothstep(1.5, 1.9, clumps + 0.8 * radius - 0.5)
        cover = (1 - smoothstep(0.78, 0.9, radius)) * (1 - 0.9 * holes)
        tone = np.asarray(vary(rng, LEAVES[rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])], 0.2, 0.1), np.float32)
        ball = 0.5 + 0.35 * v / high + 0.25 * weather.side * u / wide * weather.sun
        value = np.maximum(0.1, (0.75 + 0.3 * clumps + 0.16 * leaves) * (0.75 + 0.5 * ball))
        color = value[..., None] * tone * weather.on(np.clip(ball, 0, 1))
        canvas.paint(upper, left, color.astype(np.float32), cover.astype(np.float32), VEGETATION, self.z)
