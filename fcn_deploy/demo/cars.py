"""Cars, vans and buses, as solid bodies whose faces are turned towards the camera or away from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.demo.camera import Camera
from fcn_deploy.demo.canvas import CAR, Canvas, Sprite
from fcn_deploy.demo.objects import Points, Thing, tint
from fcn_deploy.demo.textures import Noise
from fcn_deploy.demo.weather import Color, Weather, vary

# Corners of a side view as shares of length and height, from the rear.
_Profile = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Body:
    """The shape of a car.

    Attributes:
        length: Metres.
        width: Metres.
        height: Metres.
        outline: From the rear bumper over the roof to the front one.
        glass: Which strips of the outline are windscreens; strip i begins at corner i.
        windows: On the sides.
    """

    length: float
    width: float
    height: float
    outline: _Profile
    glass: tuple[int, ...]
    windows: tuple[_Profile, ...]


_BODIES = (
    _Body(  # saloon
        4.5, 1.8, 1.45,
        ((0, .22), (0, .6), (.03, .66), (.17, .68), (.3, .98), (.62, 1), (.78, .67), (.97, .56), (1, .5), (1, .22)),
        (3, 5),
        (((.22, .7), (.33, .93), (.46, .94), (.46, .7)), ((.48, .7), (.48, .94), (.61, .94), (.73, .7))),
    ),
    _Body(  # hatchback
        3.9, 1.72, 1.5,
        ((0, .22), (0, .62), (.07, .95), (.15, 1), (.58, 1), (.75, .68), (.97, .58), (1, .5), (1, .22)),
        (1, 4),
        (((.1, .68), (.15, .93), (.36, .94), (.36, .68)), ((.39, .68), (.39, .94), (.56, .94), (.69, .68))),
    ),
    _Body(  # off-roader
        4.6, 1.9, 1.78,
        ((0, .25), (0, .62), (.05, .96), (.1, 1), (.6, 1), (.74, .67), (.97, .62), (1, .54), (1, .25)),
        (1, 4),
        (((.09, .67), (.11, .93), (.34, .94), (.34, .67)), ((.37, .67), (.37, .94), (.58, .94), (.69, .67))),
    ),
    _Body(  # van
        5.4, 2.0, 2.3,
        ((0, .18), (0, .5), (.01, .95), (.04, 1), (.74, 1), (.88, .6), (.98, .5), (1, .42), (1, .18)),
        (4,),
        (((.66, .6), (.66, .88), (.75, .88), (.83, .6)),),
    ),
    _Body(  # bus
        10.5, 2.5, 3.1,
        ((0, .12), (0, .5), (.005, .9), (.01, 1), (.99, 1), (1, .9), (1, .42), (1, .12)),
        (1, 5),
        tuple(((a, .45), (a, .82), (a + .13, .82), (a + .13, .45)) for a in (.04, .19, .34, .49, .64, .79)),
    ),
)  # fmt: skip
_PAINTS: tuple[Color, ...] = (
    (0.78, 0.78, 0.79), (0.55, 0.56, 0.58), (0.30, 0.31, 0.33), (0.10, 0.10, 0.11), (0.55, 0.09, 0.09),
    (0.10, 0.20, 0.45), (0.20, 0.35, 0.30), (0.66, 0.56, 0.20), (0.50, 0.44, 0.36),
)  # fmt: skip


@dataclass(frozen=True)
class Car(Thing):
    """A car, van or bus.

    Attributes:
        yaw: Radians; 0 drives away from the camera, pi towards it.
        body: Index of its shape, 0..4; the last is a bus.
    """

    yaw: float
    body: int

    def paint(self, canvas: Canvas, camera: Camera, weather: Weather, noise: Noise, rng: np.random.Generator) -> None:
        """Paints it, see `Thing.paint`."""
        body = _BODIES[self.body]
        painted = vary(rng, _PAINTS[rng.integers(len(_PAINTS))], 0.15, 0.08)
        glass = np.asarray((0.10, 0.11, 0.13)) + np.asarray(weather.zenith) * rng.uniform(0.05, 0.4)
        outline = np.asarray(body.outline)
        sides = [self._place(camera, body, outline, side) for side in (-1.0, 1.0)]
        sprite = Sprite(canvas, np.concatenate(sides))
        if not sprite.visible:
            return
        turned = abs(np.sin(self.yaw)) > 0.7
        half = (body.width / 2, body.length / 2)
        self._shadow(canvas, camera, weather, *(half[::-1] if turned else half))
        # The gap between the wheels is dark at any time of day.
        sill = np.asarray(((0.04, 0.06), (0.04, 0.3), (0.96, 0.3), (0.96, 0.06)))
        for side in (-0.9, 0.9):
            sprite.polygon(self._place(camera, body, sill, side), (0.03, 0.03, 0.03))
        strips = []
        for index in range(len(outline) - 1):
            quad = np.concatenate([sides[0][index : index + 2], sides[1][index : index + 2][::-1]])
            if _area(quad) > 0:
                rise = np.arctan2(*(outline[index + 1] - outline[index])[::-1] * (body.height, body.length))
                strips.append((index, quad, 0.5 + 0.5 * float(np.cos(rise))))
        # Strips run from rear to front: the end that is turned towards the camera is painted last.
        strips.sort(key=lambda strip: strip[0], reverse=bool(np.cos(self.yaw) > 0))
        for index, quad, up in strips:
            light = weather.on(0.9 * up)
            is_glass = index in body.glass
            factor = 0.72 + 0.38 * up
            sprite.polygon(quad, tint(painted, light, factor))
            if is_glass:
                sprite.polygon(quad.mean(0) + (quad - quad.mean(0)) * (0.88, 0.86), tint(glass, light, 1.1))
        self._lamps(sprite, sides, len(outline), rng)
        for side, points in zip((-1.0, 1.0), sides, strict=True):
            if _area(points) * side > 0:
                self._flank(sprite, camera, weather, body, side, points, painted, glass)
        self._finish(canvas, sprite, CAR, noise, 0.05)

    def _flank(
        self, sprite: Sprite, camera: Camera, weather: Weather, body: _Body, side: float, points: Points,
        painted: Color, glass: NDArray[Any],
    ) -> None:  # fmt: skip
        light = weather.on(0.7 * max(0.0, side * weather.side * float(np.cos(self.yaw))))
        sprite.polygon(points, tint(painted, light, 0.92))
        lower = np.asarray(((0.01, 0.24), (0.01, 0.42), (0.99, 0.42), (0.99, 0.24)))
        sprite.polygon(self._place(camera, body, lower, side), tint(painted, light, 0.72))
        for window in body.windows:
            sprite.polygon(self._place(camera, body, np.asarray(window), side), tint(glass, light))
        radius = 0.33 if body.height < 2.5 else 0.48
        turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        circle = np.stack([np.cos(turn) / body.length, np.sin(turn) / body.height], -1)
        for axle in (0.18, 0.81):
            hub = np.asarray((axle, radius / body.height))
            sprite.polygon(self._place(camera, body, hub + 1.2 * radius * circle, side), (0.03, 0.03, 0.03))
            sprite.polygon(self._place(camera, body, hub + radius * circle, side), (0.06, 0.06, 0.06))
            sprite.polygon(self._place(camera, body, hub + 0.55 * radius * circle, side), tint((0.5, 0.5, 0.5), light))

    def _lamps(self, sprite: Sprite, sides: list[Points], count: int, rng: np.random.Generator) -> None:
        away = np.cos(self.yaw) > 0
        low, high = (0, 1) if away else (count - 1, count - 2)
        corners = np.asarray([sides[0][low], sides[1][low], sides[0][high], sides[1][high]])
        if _area(np.concatenate([sides[0][:2], sides[1][:2][::-1]])) <= 0 and away:
            return

        def at(across: float, up: float) -> Points:
            lower = corners[0] * (1 - across) + corners[1] * across
            upper = corners[2] * (1 - across) + corners[3] * across
            point: Points = lower * (1 - up) + upper * up
            return point

        lamp = (0.75, 0.10, 0.08) if away else (0.95, 0.93, 0.85)
        for left, right in ((0.04, 0.24), (0.76, 0.96)):
            quad = np.asarray([at(left, 0.62), at(right, 0.62), at(right, 0.88), at(left, 0.88)])
            sprite.polygon(quad, lamp)
        if rng.random() < 0.8:
            plate = np.asarray([at(0.36, 0.3), at(0.64, 0.3), at(0.64, 0.48), at(0.36, 0.48)])
            sprite.polygon(plate, (0.8, 0.8, 0.76))

    def _place(self, camera: Camera, body: _Body, points: NDArray[Any], side: float) -> Points:
        """Projects points of one flank, given as shares of length and height."""
        along = (points[:, 0] - 0.5) * body.length
        # Cabins lean inwards above the waist.
        lean = 1 - 0.18 * np.clip((points[:, 1] - 0.66) / 0.34, 0, 1) * (body.height < 2)
        across = side * body.width / 2 * lean
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return camera.project(
            self.x + across * cos + along * sin, points[:, 1] * body.height, self.z - across * sin + along * cos
        )


def _area(points: Points) -> float:
    """Twice the signed area of a polygon on the screen, positive if it winds as faces turned towards us do."""
    x, y = points[:, 0], points[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
