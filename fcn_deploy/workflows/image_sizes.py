"""Checks the sizes of images against the smallest that a net takes, before it runs on any of them."""

from __future__ import annotations

from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import stated_size
from fcn_deploy.errors import InputError
from fcn_deploy.workflows.parameters import Size


def check_image_sizes(images: ImageFolder | None, min_size: Size) -> None:
    """Checks that no image of a folder is smaller than a net takes; their headers are read, unless every size will do.

    Args:
        images: The folder, or None.
        min_size: The net's smallest height and width.

    Raises:
        InputError: One is smaller; the message names it.
    """
    if images is None or min_size == (1, 1):
        return
    if images.size is not None:
        check_stated_size(images.size, min_size, "calib_size")
        return
    for path in images.paths:
        size = stated_size(path)
        if size is not None:  # else what is wrong with the image is said when it is read
            _check(f"{path} is smaller than the net takes", size, min_size, "resize or pad the image, or leave it out")


def check_stated_size(size: Size | None, min_size: Size, name: str) -> None:
    """Checks that a size that the user states is not smaller than a net takes.

    Args:
        size: (height, width), or None.
        min_size: The net's smallest height and width.
        name: The parameter that has it.

    Raises:
        InputError: It is smaller.
    """
    if size is not None:
        _check(f"`{name}` is smaller than the net takes", size, min_size, "state a larger size")


def _check(what: str, size: Size, min_size: Size, fix: str) -> None:
    if size[0] < min_size[0] or size[1] < min_size[1]:
        got, least = (f"{height}x{width}" for height, width in (size, min_size))
        raise InputError(what, got=got, expected=f"at least {least}", fix=fix)
