"""Runs large images in tiles whose results, put together, are those of the whole image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.receptive_field import ReceptiveField
from fcn_deploy.errors import InputError, UsageError

Size = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """One part of an axis of an image, in pixels; ends are exclusive.

    Attributes:
        begin: The first pixel that is fed.
        end: The end of what is fed.
        first: The first pixel whose result is kept.
        last: The end of what is kept.
    """

    begin: int
    end: int
    first: int
    last: int


def parts(size: int, tile: int, before: int, after: int, alignment: int) -> list[Part]:
    """Cuts an axis into tiles, and computes what to feed for each.

    What is fed begins at a multiple of the alignment and holds the receptive field of every pixel that is kept, up to
    the borders of the image. It has one length for all tiles, except perhaps for the last ones: a library plans its
    memory by shape.

    Args:
        size: Length of the axis, in pixels.
        tile: Pixels to keep of each part, a multiple of the alignment; the last part may have fewer.
        before: How far the receptive field reaches towards the beginning, in pixels.
        after: How far it reaches towards the end.
        alignment: Parts begin at multiples of this.

    Returns:
        Parts in order; what is kept of them covers the axis without overlap.
    """
    fed = fed_size(tile, before, after, alignment)
    if fed >= size:
        return [Part(0, size, 0, size)]
    # A part at the end reaches further back instead, as far as the alignment allows.
    last = round_up(size - fed, alignment)
    begins = (min(max(0, first - round_up(before, alignment)), last) for first in range(0, size, tile))
    return [
        Part(begin, min(size, begin + fed), first, min(size, first + tile))
        for first, begin in zip(range(0, size, tile), begins, strict=True)
    ]


def fed_size(tile: int, before: int, after: int, alignment: int) -> int:
    """Returns how many pixels of an axis are fed for a tile: its own, the receptive field, and what alignment adds."""
    return round_up(round_up(before, alignment) + tile + after, alignment)


def round_up(size: int, alignment: int) -> int:
    """Returns the smallest multiple of `alignment` that is at least `size`."""
    return -(-size // alignment) * alignment


def check_tile(tile: object) -> Size:
    """Returns the size of a tile, (height, width) in pixels.

    Raises:
        UsageError: It is not a pair of integers of at least 1.
    """
    sides = tuple(tile) if isinstance(tile, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in sides):
        raise UsageError("bad size of tiles", got=tile, expected="height and width, each at least 1")
    return int(sides[0]), int(sides[1])


@dataclass(frozen=True)
class Tiling:
    """How a net runs images of any size in bounded memory.

    Attributes:
        height: Rows of a tile whose results are kept, a multiple of the receptive field's alignment; more are fed.
        width: Columns, likewise.
        field: The net's receptive field.
    """

    height: int
    width: int
    field: ReceptiveField

    @classmethod
    def of(cls, tile: Size, field: ReceptiveField) -> Tiling:
        """Makes a tiling of tiles at least as large as `tile`, (height, width).

        Raises:
            UsageError: `tile` is not a size.
        """
        height, width = (round_up(side, field.alignment) for side in check_tile(tile))
        return cls(height, width, field)

    @property
    def fed(self) -> Size:
        """Height and width of what the net is fed, of an image that is larger."""
        field = self.field
        height = fed_size(self.height, field.top, field.bottom, field.alignment)
        return height, fed_size(self.width, field.left, field.right, field.alignment)

    def run(self, net: Callable[[NDArray[np.uint8]], NDArray[Any]], images: NDArray[np.uint8]) -> NDArray[Any]:
        """Runs a net tile by tile.

        Args:
            net: Takes images, uint8 [N, H, W, 3], and returns labels [N, H, W] or logits [N, C, H, W].
            images: uint8 [N, H, W, 3].

        Returns:
            What `net` returns for the images as a whole.

        Raises:
            InputError: The net scales by the size of the image, and this size is not a multiple of its alignment.
        """
        height, width = images.shape[1:3]
        field = self.field
        rows = parts(height, self.height, field.top, field.bottom, field.alignment)
        columns = parts(width, self.width, field.left, field.right, field.alignment)
        if len(rows) == len(columns) == 1:
            return net(images)
        if not field.any_size and (height % field.alignment or width % field.alignment):
            raise InputError(
                "this net cannot run images of this size in tiles",
                got=f"{height}x{width}",
                expected=f"multiples of {field.alignment}, because the net scales by the size of the image",
                fix=f"pad or crop the image, or export the net with `size_divisor={field.alignment}`",
            )
        whole: NDArray[Any] | None = None
        for row, column in product(rows, columns):
            fed = np.ascontiguousarray(images[:, row.begin : row.end, column.begin : column.end])
            result = net(fed)
            if whole is None:
                whole = np.empty((*result.shape[:-2], height, width), result.dtype)
            whole[..., row.first : row.last, column.first : column.last] = result[
                ...,
                row.first - row.begin : row.last - row.begin,
                column.first - column.begin : column.last - column.begin,
            ]
        assert whole is not None
        return whole
