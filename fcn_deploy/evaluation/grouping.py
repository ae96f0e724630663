"""Groups neighbours of equal size, so that an engine can run them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import UsageError

T = TypeVar("T")


def grouped(items: Iterable[T], size: int, image_of: Callable[[T], NDArray[np.uint8]]) -> Iterator[list[T]]:
    """Groups neighbours of equal size: the order stays, and no more than `size` images are held at a time.

    Args:
        items: What has an image each.
        size: Most items of a group.
        image_of: Returns the image of an item, uint8 [H, W, 3].

    Raises:
        UsageError: `size` is less than one.
    """
    if size < 1:
        raise UsageError("`batch` is too small", got=size, expected="at least one image")
    group: list[T] = []
    for item in items:
        if group and image_of(item).shape != image_of(group[0]).shape:
            yield group
            group = []
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
