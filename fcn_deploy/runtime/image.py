"""Checks and normalises images, and paints labels, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.errors import InputError


def check_images(image: object) -> NDArray[np.uint8]:
    """Returns `image` as a batch.

    Args:
        image: uint8 [H, W, 3] or [N, H, W, 3], RGB, no axis of size 0.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        InputError: `image` is anything else.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(
            "not an image",
            got=f"a {type(image).__name__}",
            expected="a numpy array, uint8 [H, W, 3] or [N, H, W, 3], RGB",
            fix="np.stack images of one size into a batch; loop over images of different sizes",
        )
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
        raise InputError(
            "not an image",
            got=f"{image.dtype} {list(image.shape)}",
            expected="uint8 [H, W, 3] or [N, H, W, 3], RGB, no axis of size 0",
        )
    return image if image.ndim == 4 else image[np.newaxis]


def check_size(images: NDArray[np.uint8], min_size: tuple[int, int]) -> None:
    """Checks that images are not smaller than a net takes.

    Args:
        images: uint8 [N, H, W, 3].
        min_size: The net's smallest height and width.

    Raises:
        InputError: They are.
    """
    height, width = images.shape[1:3]
    if height < min_size[0] or width < min_size[1]:
        raise InputError(
            "the image is smaller than the net takes",
            got=f"{height}x{width}",
            expected=f"at least {min_size[0]}x{min_size[1]}",
            fix="resize or pad the image",
        )


def normalize(images: NDArray[np.uint8], normalization: Normalization) -> NDArray[np.float32]:
    """Normalises images for a net with tensor input: `(x * scale - mean) / std`, in the net's channel order.

    Args:
        images: uint8 [N, H, W, 3], RGB.
        normalization: The net's normalisation.

    Returns:
        float32 [N, 3, H, W], contiguous.
    """
    a, b = normalization.affine()
    batch, height, width, _ = images.shape
    result = np.empty((batch, 3, height, width), np.float32)
    for channel in range(3):
        source = channel if normalization.color == "RGB" else 2 - channel
        plane = result[:, channel]
        np.multiply(images[..., source], np.float32(a[channel]), out=plane)
        plane += np.float32(b[channel])
    return result


def colorize(labels: NDArray[np.integer[Any]], palette: Sequence[Rgb]) -> NDArray[np.uint8]:
    """Paints labels in the colours of their classes.

    Args:
        labels: Integer [...]; values without a colour become black.
        palette: One RGB colour for each class.

    Returns:
        uint8 [..., 3].
    """
    colors = np.array([*palette, (0, 0, 0)], np.uint8)
    known = (labels >= 0) & (labels < len(palette))
    return colors[np.where(known, labels, len(palette))]


def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.integer[Any]], palette: Sequence[Rgb], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Lays the colours of the labels over the image.

    Args:
        image: uint8 [..., H, W, 3], RGB.
        labels: Integer [..., H, W].
        palette: One RGB colour for each class.
        opacity: Share of the colours in the mix, 0..1.

    Returns:
        uint8 [..., H, W, 3].

    Raises:
        InputError: Image and labels differ in size, or `opacity` is not in 0..1.
    """
    if image.shape[:-1] != labels.shape:
        raise InputError("image and labels differ in size", got=list(labels.shape), expected=list(image.shape[:-1]))
    if not 0 <= opacity <= 1:
        raise InputError("bad `opacity`", got=opacity, expected="0..1")
    mixed = image * (1 - opacity) + colorize(labels, palette) * opacity
    return np.rint(mixed).astype(np.uint8)
