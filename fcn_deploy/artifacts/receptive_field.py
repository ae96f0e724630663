"""How far a net sees."""

from __future__ import annotations

from dataclasses import dataclass

from fcn_deploy.artifacts.json import integer, require


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels of an image the logits of one pixel depend on, if they lie inside the image.

    Attributes:
        top: Rows above the pixel, 0 or more.
        bottom: Rows below it.
        left: Columns to its left.
        right: Columns to its right.
        alignment: The net does the same to an image and to a part of it that begins at a multiple of this; at least 1.
        any_size: Whether that holds at every size of the image, or only if the size is a multiple of the alignment.

    Raises:
        InputError: A value is bad.
    """

    top: int
    bottom: int
    left: int
    right: int
    alignment: int
    any_size: bool = True

    def __post_init__(self) -> None:
        reach = (self.top, self.bottom, self.left, self.right)
        whole = all(integer(side, "receptive field") >= 0 for side in reach)
        require(whole, "receptive field", reach, "four integers of 0 or more")
        aligned = integer(self.alignment, "receptive field alignment") >= 1
        require(aligned, "receptive field alignment", self.alignment, "1 or more")
        require(isinstance(self.any_size, bool), "receptive field any_size", self.any_size, "true or false")
