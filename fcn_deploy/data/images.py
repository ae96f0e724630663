"""Images, read with Pillow."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fcn_deploy.errors import InputError
from fcn_deploy.files import reading

_SHOWN = 5

# Formats that Pillow reads by itself. Others start a program (EPS: Ghostscript) or the code of a plugin, whatever the
# suffix of the file says.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "AVIF")


def read_image(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Reads an image as the camera was held: EXIF rotation applied, grey and palette expanded, alpha dropped.

    Args:
        path: The file, in any format that Pillow reads; 16-bit grey is scaled to 8 bits.
        size: [height, width] to resize to, bilinearly; None to keep the size it has.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: The file cannot be read, is not an image, or is damaged.
    """
    image = open_image(path)
    if image.mode.startswith("I"):  # 16-bit grey, stored in 16 or 32 bits; Pillow would clip it at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise InputError(f"{path} has float pixels", expected="8 or 16 bits", fix="convert it to 8 bits")
    image.info.pop("transparency", None)  # alpha is dropped; with it Pillow would warn
    image = image.convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def is_image(path: str | os.PathLike[str]) -> bool:
    """Returns whether the content of a file is an image.

    Raises:
        InputError: The file cannot be read or is damaged, or has the suffix of an image and another content.
    """
    path = Path(path)
    try:
        with reading(path), open_untrusted(path):
            return True
    except InputError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
    except Exception as error:
        # For damaged and hostile files Pillow raises nearly every type of exception.
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error
    if Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN:
        raise InputError(
            f"{path} is not an image",
            got=f"content of an unknown format, {path.stat().st_size} bytes",
            fix="remove or replace it",
        )
    return False


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Opens an image and applies its EXIF rotation.

    Raises:
        InputError: The file cannot be read, is not an image, or is damaged.
    """
    path = Path(path)
    try:
        with reading(path), open_untrusted(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except InputError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise InputError(f"{path} is not an image", got="content of an unknown format") from error
        raise InputError(f"{path} is damaged or not an image", got=error.got) from error
    except Exception as error:  # of nearly every type, as in is_image
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error


def open_untrusted(path: Path) -> Image.Image:
    """Opens an image of a format that is decoded without another program; the caller closes it.

    Raises:
        UnidentifiedImageError: The content is of no such format.
        OSError: The file cannot be read.
    """
    return Image.open(path, formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()  # which of them this Pillow was built with
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def listed(names: Sequence[Any]) -> str:
    """Returns the first names as a list in words, and the number of the others: `a, b and 3 more`."""
    shown = ", ".join(map(str, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
