"""Shapes of images and of a graph's tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from fcn_deploy.artifacts.json import require
from fcn_deploy.errors import UsageError

# The order of a tensor's axes: batch, channels, height, width; or batch, height, width, channels.
Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: The tensor's name.
        dtype: A numpy dtype name such as `float32`.
        shape: An int for each fixed size, a name for each dynamic dimension.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class ImageShape:
    """The shape of a batch of images, never of channels.

    Attributes:
        batch: Number of images, at least 1.
        height: In pixels, at least 1.
        width: In pixels, at least 1.

    Raises:
        InputError: A size is less than 1.
    """

    batch: int
    height: int
    width: int

    def __post_init__(self) -> None:
        sizes = (self.batch, self.height, self.width)
        require(all(size >= 1 for size in sizes), "shape", str(self), "NxHxW or HxW, each at least 1")

    @classmethod
    def parse(cls, text: str) -> ImageShape:
        """Reads `NxHxW`, or `HxW` for a batch of one.

        Raises:
            UsageError: `text` is not such a shape.
        """
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", text):
            raise UsageError("bad shape", got=repr(text), expected="NxHxW or HxW, such as 4x512x512 or 360x480")
        *batch, height, width = (int(size) for size in text.split("x"))
        return cls(batch[0] if batch else 1, height, width)

    def at_least(self, min_size: tuple[int, int]) -> ImageShape:
        """Returns the shape with height and width raised to a smallest size, in pixels."""
        return ImageShape(self.batch, max(self.height, min_size[0]), max(self.width, min_size[1]))

    def __str__(self) -> str:
        return f"{self.batch}x{self.height}x{self.width}"
