"""Large images in parts whose results, put together, are those of the whole."""

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
    """Part of one axis of an image.

    Attributes:
        begin: First pixel that is fed.
        end: One behind the last.
        first: First pixel whose result is kept.
        last: One behind the last.
    """

    begin: int
    end: int
    first: int
    last: int


def parts(size: int, tile: int, before: int, behind: int, alignment: int) -> list[Part]:
    """Cuts an axis into tiles, and says what has to be fed for each.

    What is fed begins at a multiple of the alignment, holds the receptive field of every pixel that is kept as far as
    there is image, and is equally long for all tiles, the last ones perhaps excepted: a library plans its memory by
    shape.

    Args:
        size: Of the axis, in pixels.
        tile: Pixels to keep of each part, a multiple of the alignment; of the last, fewer may be left.
        before: Reach of the receptive field towards the beginning.
        behind: And towards the end.
        alignment: Of where parts begin.

    Returns:
        Parts in order; those that are kept cover the axis and do not overlap.
    """
    fed = fed_size(tile, before, behind, alignment)
    if fed >= size:
        return [Part(0, size, 0, size)]
    # A part at the end reaches further back instead, as far as alignment lets it.
    last = round_up(size - fed, alignment)
    begins = (min(max(0, first - round_up(before, alignment)), last) for first in range(0, size, tile))
    return [
        Part(begin, min(size, begin + fed), first, min(size, first + tile))
        for first, begin in zip(range(0, size, tile), begins, strict=True)
    ]


def fed_size(tile: int, before: int, behind: int, alignment: int) -> int:
    """Returns how much of an axis is fed for a tile: the receptive field more, and what alignment asks for."""
    return round_up(round_up(before, alignment) + tile + behind, alignment)


def round_up(size: int, alignment: int) -> int:
    """Returns the next multiple of the alignment."""
    return -(-size // alignment) * alignment


@dataclass(frozen=True)
class Tiling:
    """How a net is run on images of any size in bounded memory.

    Attributes:
        height: Rows of a tile whose results are kept; more are fed.
        width: Columns.
        field: The net's receptive field, of whose alignment height and width are multiples.
    """

    height: int
    width: int
    field: ReceptiveField

    @classmethod
    def of(cls, tile: Size, field: ReceptiveField) -> Tiling:
        """Makes one of tiles at least as large as `tile`, [height, width].

        Raises:
            UsageError: `tile` is no size.
        """
        sides = tuple(tile) if isinstance(tile, list | tuple) else ()
        if len(sides) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in sides):
            raise UsageError("bad size of tiles", got=tile, expected="height and width, 1 or more")
        height, width = (round_up(int(side), field.alignment) for side in sides)
        return cls(height, width, field)

    @property
    def fed(self) -> Size:
        """Height and width of what the net is run on, in images that are larger."""
        field = self.field
        height = fed_size(self.height, field.top, field.bottom, field.alignment)
        return height, fed_size(self.width, field.left, field.right, field.alignment)

    def run(self, net: Callable[[NDArray[np.uint8]], NDArray[Any]], images: NDArray[np.uint8]) -> NDArray[Any]:
        """Runs a net tile by tile.

        Args:
            net: From images, uint8 [N, H, W, 3], to labels [N, H, W] or logits [N, C, H, W].
            images: uint8 [N, H, W, 3].

        Returns:
            What `net` returns for the images as a whole.

        Raises:
            InputError: The net works otherwise at this size than at the tiles'.
        """
        height, width = images.shape[1:3]
        field = self.field
        rows = parts(height, self.height, field.top, field.bottom, field.alignment)
        columns = parts(width, self.width, field.left, field.right, field.alignment)
        if len(rows) == len(columns) == 1:
            return net(images)
        if not field.any_size and (height % field.alignment or width % field.alignment):
            raise InputError(
                "this net cannot be run in tiles on images of this size",
                got=f"{height}x{width}",
                expected=f"multiples of {field.alignment}: at others it scales by the size of the image",
                fix=f"pad or crop the image, or export the net with --size-divisor {field.alignment}",
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
