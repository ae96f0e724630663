"""What a scene is painted on: light, labels and distance, far things first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fcn_deploy.demo.textures import Array

SKY, BUILDING, ROAD, SIDEWALK, VEGETATION, CAR, PEDESTRIAN, POLE = range(8)
VOID = 255

# A pixel that two things share has no label, unless one of them covers more than this share of it.
_OWNED, _SHARED = 0.7, 0.3
_SUPERSAMPLING = 3


class Canvas:
    """The picture while it is painted.

    Args:
        height: In pixels.
        width: In pixels.

    Attributes:
        light: float32 [H, W, 3], about 0..1.
        labels: uint8 [H, W].
        depth: float32 [H, W], metres to what the pixel shows; infinite in the sky.
        walls: float32 [H, W], metres to the nearest wall, which hides things behind it; infinite without one.
    """

    def __init__(self, height: int, width: int) -> None:
        self.light: Array = np.zeros((height, width, 3), np.float32)
        self.labels: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
        self.depth: Array = np.full((height, width), np.inf, np.float32)
        self.walls: Array = np.full((height, width), np.inf, np.float32)

    def paint(
        self, top: int, left: int, color: Array, alpha: Array, label: int | None, depth: float | NDArray[Any]
    ) -> None:
        """Paints a rectangle that lies inside the picture over what is there.

        Args:
            top: First row.
            left: First column.
            color: float32 [h, w, 3].
            alpha: float32 [h, w], share of the pixel covered, 0..1.
            label: Class of what is painted; None for light alone, such as a shadow.
            depth: Metres, broadcasting to [h, w]; nothing is painted on pixels that show a nearer wall.
        """
        height, width = alpha.shape
        window = np.s_[top : top + height, left : left + width]
        alpha = alpha * (depth <= self.walls[window])
        light = self.light[window]
        light += (color - light) * alpha[..., None]
        if label is None:
            return
        labels = self.labels[window]
        labels[(alpha > _SHARED) & (labels != label)] = VOID
        labels[alpha > _OWNED] = label
        nearer = alpha > _SHARED
        self.depth[window] = np.where(nearer, depth, self.depth[window])


class Sprite:
    """A few polygons, drawn large and then reduced, so that their edges are as soft as a lens makes them.

    Args:
        canvas: What it will be painted on.
        corners: float [n, 2], columns and rows that the sprite spans, in pixels of the canvas.
    """

    def __init__(self, canvas: Canvas, corners: NDArray[Any]) -> None:
        self._canvas = canvas
        height, width = canvas.labels.shape
        low = np.floor(corners.min(0) - 1).astype(int)
        high = np.ceil(corners.max(0) + 1).astype(int)
        self.left, self.top = max(0, int(low[0])), max(0, int(low[1]))
        self.width = min(width, int(high[0])) - self.left
        self.height = min(height, int(high[1])) - self.top
        self.visible = self.width > 0 and self.height > 0
        size = (max(1, self.width) * _SUPERSAMPLING, max(1, self.height) * _SUPERSAMPLING)
        self._image = Image.new("RGBA", size)
        self._draw = ImageDraw.Draw(self._image)

    def _place(self, points: NDArray[Any]) -> list[tuple[float, float]]:
        # Far outside the frame Pillow's integers overflow; nothing there is seen.
        placed = np.clip((np.asarray(points) - (self.left, self.top)) * _SUPERSAMPLING, -20_000, 20_000)
        return [(float(x), float(y)) for x, y in placed]

    def polygon(self, points: NDArray[Any], color: Sequence[float]) -> None:
        """Fills a polygon given by its corners, float [n, 2] in pixels of the canvas."""
        self._draw.polygon(self._place(points), fill=_bytes(color))

    def line(self, points: NDArray[Any], color: Sequence[float], width: float) -> None:
        """Draws a line of `width` pixels through float [n, 2]."""
        self._draw.line(self._place(points), _bytes(color), max(1, round(width * _SUPERSAMPLING)), joint="curve")

    def disc(self, center: NDArray[Any], radius: float, color: Sequence[float], stretch: float = 1.0) -> None:
        """Fills an ellipse, `stretch` times as high as wide."""
        reach = np.asarray([radius, radius * stretch])
        (left, top), (right, bottom) = self._place(np.stack([center - reach, center + reach]))
        self._draw.ellipse((left, top, right, bottom), fill=_bytes(color))

    def layers(self) -> tuple[Array, Array]:
        """Returns the drawing as float32 [h, w, 3] colour and float32 [h, w] cover, both 0..1."""
        pixels = np.asarray(self._image.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)
        return pixels[..., :3], pixels[..., 3]


def _bytes(color: Sequence[float]) -> tuple[int, int, int, int]:
    red, green, blue = (min(255, max(0, round(255 * float(channel)))) for channel in color)
    return red, green, blue, 255
