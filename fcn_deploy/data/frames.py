"""Frames: what video files, cameras and streams give, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import InputError, UsageError


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video, a camera or a stream.

    Attributes:
        index: Its number, counted from 0.
        pts: When it is shown, in units of the time base of its source.
        duration: For how long, in the same units; 0 if the source does not say.
        image: uint8 [H, W, 3], RGB, upright.
    """

    index: int
    pts: int
    duration: int
    image: NDArray[np.uint8]


class FrameSource(Protocol):
    """What gives frames. It is open until its context ends.

    Attributes:
        name: What messages call it; without a password.
        path: The file; None for a camera or a stream.
        live: Whether it goes on until somebody stops it.
        time_base: Seconds that one unit of `Frame.pts` stands for.
        rate: Frames a second that it states; None if it states none.
        total: Number of frames that it states; None if it states none.
        pixel_aspect: Width of a pixel over its height, of an upright frame.
        has_audio: Whether there is sound.
        left_out: How many frames were left out until now, because more came than were asked for.
    """

    name: str
    path: Path | None
    live: bool
    time_base: Fraction
    rate: Fraction | None
    total: int | None

    @property
    def pixel_aspect(self) -> Fraction:
        """See above; known with the first frame."""
        ...

    @property
    def has_audio(self) -> bool:
        """See above."""
        ...

    @property
    def left_out(self) -> int:
        """See above."""
        ...

    def frames(self) -> Iterator[Frame | InputError]:
        """Yields each frame, and an error in the place of each that cannot be read."""
        ...


def is_count(value: object) -> bool:
    """Returns whether a value is a whole number of at least one."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


@dataclass(frozen=True)
class Selection:
    """Which frames are taken.

    Attributes:
        every: Every how many-th frame, beginning with the first.
        most: At most so many frames; None for all.

    Raises:
        UsageError: A number is less than one, or not whole.
    """

    every: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        if not is_count(self.every):
            raise UsageError("bad `every`", got=repr(self.every), expected="1 or more")
        if self.most is not None and not is_count(self.most):
            raise UsageError("bad `max_frames`", got=repr(self.most), expected="1 or more")

    def count(self, total: int | None) -> int | None:
        """Returns how many of `total` frames are taken; None if that cannot be said."""
        if total is None:
            return None
        taken = -(-total // self.every)
        return taken if self.most is None else min(taken, self.most)

    def takes(self, index: int) -> bool:
        """Returns whether the frame of a number, counted from 0, is taken if `most` is not reached."""
        return index % self.every == 0
