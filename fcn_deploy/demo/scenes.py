"""Labelled scenes that look like a street from a car: `make_scene(seed)` is an image and the class of each pixel.

They are not photographs, but they ask of a net what photographs ask: surfaces have texture, far things are small and
hazy, things hide each other, a grey patch may be road, wall or sky, and the light is never the same twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.demo.camera import Camera, Lens
from fcn_deploy.demo.canvas import Canvas
from fcn_deploy.demo.cars import Car
from fcn_deploy.demo.objects import Pedestrian, Pole, Thing, Tree
from fcn_deploy.demo.street import Street, paint_ground
from fcn_deploy.demo.textures import Noise
from fcn_deploy.demo.walls import plan_walls
from fcn_deploy.demo.weather import Weather
from fcn_deploy.errors import InputError

DEFAULT_SIZE = (192, 256)
SMALLEST_SIDE = 32
_BUS = 4


@dataclass(frozen=True)
class Scene:
    """A picture of a street and what is on it.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W]: an index into `fcn_deploy.demo.CLASSES`, or 255 for a pixel that two things share.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.image.shape != (*self.labels.shape, 3) or self.image.dtype != np.uint8:
            raise InputError(
                "a scene's image does not fit its labels",
                got=f"{self.image.dtype} {list(self.image.shape)}",
                expected=f"uint8 {[*self.labels.shape, 3]}",
            )


def make_scene(seed: int, size: tuple[int, int] = DEFAULT_SIZE) -> Scene:
    """Makes one scene, the same for the same seed and size.

    Args:
        seed: At least 0.
        size: Height and width in pixels, each at least 32.

    Returns:
        The scene.

    Raises:
        InputError: The seed is negative or the size too small.
    """
    if seed < 0:
        raise InputError("the seed of a scene is negative", got=seed, expected="0 or more")
    height, width = size
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            "a scene is too small", got=f"{height}x{width}", expected=f"at least {SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
    rng = np.random.default_rng(seed)
    noise = Noise(rng)
    street, weather = Street.random(rng), Weather.random(rng)
    camera = Camera.random(rng, height, width, street.road[1])
    canvas = Canvas(height, width)

    weather.paint_sky(canvas, camera, noise, rng)
    paint_ground(canvas, camera, street, weather, noise, rng)
    walls = sorted(plan_walls(street, weather, noise, rng), key=lambda wall: wall.distance)
    things = sorted(_populate(street, camera, rng), key=lambda thing: -thing.z)
    for wall in walls:
        wall.paint(canvas, camera, weather)
    for thing in things:
        thing.paint(canvas, camera, weather, noise, rng)
    weather.paint_haze(canvas)
    return Scene(Lens.random(rng, width).develop(canvas.light, noise), canvas.labels)


def _populate(street: Street, camera: Camera, rng: np.random.Generator) -> list[Thing]:
    """Puts things where they belong: cars on the road, the rest beside it, people anywhere."""
    things: list[Thing] = [*_cars(street, camera, rng)]
    for side, road, walk, house in zip((-1, 1), street.road, street.walk, street.house, strict=True):
        trees = rng.random() < 0.5
        pitch = rng.uniform(6, 14)
        spots = np.arange(rng.uniform(4, 12), 70, pitch) if trees else rng.uniform(6, 50, rng.poisson(0.8))
        # Trees of an avenue stand along the kerb or in the verge, others in the gardens, and none in a wall.
        garden = max(0.0, abs(house - walk) - 1.5)
        row = walk if rng.random() < 0.5 and garden else road + side * 0.7
        for z in spots:
            x = row if trees else walk + side * rng.uniform(0, garden)
            things.append(Tree(x + rng.normal(0, 0.3), float(z) + rng.normal(0, 0.8)))
        for z in np.exp(rng.uniform(np.log(5), np.log(32), rng.poisson(1.9))):
            things.append(Pole(road + side * rng.uniform(0.3, 0.9), float(z)))
        for z in np.exp(rng.uniform(np.log(4.5), np.log(32), rng.poisson(2.2))):
            x = road + side * max(0.6, rng.uniform(0, abs(walk - road)))
            for _ in range(1 + (rng.random() < 0.3)):
                things.append(Pedestrian(x + rng.normal(0, 0.35), float(z) + rng.normal(0, 0.3)))
    for z in rng.uniform(7, 28, rng.poisson(0.6)):
        things.append(Pedestrian(rng.uniform(*street.road), float(z)))
    return [thing for thing in things if thing.z > 3.5]


def _cars(street: Street, camera: Camera, rng: np.random.Generator) -> list[Car]:
    cars: list[Car] = []
    left, right = street.road
    lanes = [(left / 2, np.pi, rng.poisson(1.1)), (right / 2, 0.0, rng.poisson(1.0))]
    for kerb, yaw in ((left + 1.1, np.pi), (right - 1.1, 0.0)):
        if right > 3.6 and rng.random() < 0.55:
            lanes.append((kerb, yaw if rng.random() < 0.8 else np.pi - yaw, rng.poisson(4.5)))
    if street.crossing is not None:
        middle = sum(street.crossing) / 2
        for _ in range(rng.poisson(0.8)):
            x, z, yaw = rng.uniform(-12, 12), middle + rng.normal(0, 1), rng.choice([-1, 1]) * np.pi / 2
            _park(cars, Car(x, z, yaw, _body(rng)))
    for x, yaw, count in lanes:
        for z in np.exp(rng.uniform(np.log(6.5), np.log(50), count)):
            _park(cars, Car(x + rng.normal(0, 0.15), float(z), yaw + rng.normal(0, 0.04), _body(rng)))
    # Nothing drives into the lens.
    return [car for car in cars if abs(car.x - camera.offset) > 1.8 or car.z > 8 + 4 * (car.body == _BUS)]


def _body(rng: np.random.Generator) -> int:
    return int(rng.choice(5, p=[0.3, 0.27, 0.25, 0.13, 0.05]))


def _park(cars: list[Car], car: Car) -> None:
    """Adds a car unless it would stand inside another."""
    if all(abs(car.x - other.x) > 2.4 or abs(car.z - other.z) > 6.5 for other in cars):
        cars.append(car)
