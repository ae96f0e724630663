"""Images, read with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fcn_deploy.errors import InputError
from fcn_deploy.files import reading

_SHOWN = 5


def read_image(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Reads an image as the camera held it: EXIF rotation applied, grey and palette expanded, alpha dropped.

    Args:
        path: In any format Pillow reads; 16-bit grey is scaled to 8.
        size: [height, width] to resize to, bilinearly, or None.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: The file cannot be read, is no image, or is damaged.
    """
    image = open_image(path)
    if image.mode.startswith("I"):  # 16-bit grey, in 16 or 32 bits; Pillow would clip it at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise InputError(f"{path} has float pixels", expected="8 or 16 bits", fix="convert it to 8 bits")
    image.info.pop("transparency", None)  # alpha is dropped, and Pillow would warn of keeping it
    image = image.convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def is_image(path: Path) -> bool:
    """Returns whether a file is an image, by its content.

    Raises:
        InputError: It cannot be read, is damaged, or has an image's suffix and another content.
    """
    try:
        with reading(path), Image.open(path):
            return True
    except InputError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
    except Exception as error:
        # Damaged and hostile files bring out nearly every type of exception; each means that this is no image to us.
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error
    if Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN:
        raise InputError(
            f"{path} is not an image",
            got=f"content that no reader knows, {path.stat().st_size} bytes",
            fix="remove or replace it",
        )
    return False


def open_image(path: Path) -> Image.Image:
    """Opens an image, its EXIF rotation applied.

    Raises:
        InputError: The file cannot be read, is no image, or is damaged.
    """
    try:
        with reading(path), Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except InputError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise InputError(f"{path} is not an image", got="content that no reader knows") from error
        raise InputError(f"{path} is damaged or not an image", got=error.got) from error
    except Exception as error:  # as above
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error


def listed(names: Sequence[Any]) -> str:
    """Returns the first few of several names, and how many more there are."""
    shown = ", ".join(map(str, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
