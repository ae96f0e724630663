"""Images, read with Pillow."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fcn_deploy.data.lossy import lossy_format
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, is_broken_link, reading

_log = logging.getLogger(__name__)

_SHOWN = 5
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 5 to 8 exchange height and width

# Formats that Pillow reads by itself. Others start a program (EPS: Ghostscript) or the code of a plugin, whatever the
# suffix of the file says.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "AVIF")

# Pillow's limit of pixels is a variable of its module.
_limit = threading.RLock()


@dataclass(frozen=True)
class Decoded:
    """An image file, decoded.

    Attributes:
        image: Its first frame, turned as its EXIF orientation says.
        format: Pillow's name of the format, such as `PNG`.
        turned: Whether the orientation exchanged height and width.
        lossy: What the file is, such as `a JPEG`, if its compression changes values; else None.
        grey_step: Of an image with 2 or 4 bits of grey, by how much Pillow multiplied the values that the file has.
    """

    image: Image.Image
    format: str
    turned: bool
    lossy: str | None = None
    grey_step: int = 1


def read_image(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, *, max_pixels: int | None = None
) -> NDArray[np.uint8]:
    """Reads an image as the camera was held: EXIF rotation applied, grey and palette expanded, alpha dropped.

    Of a file with several pages or frames the first is read, with a warning. 16-bit grey is scaled to 8 bits, with a
    warning if its values fill 12 bits only.

    Args:
        path: The file.
        size: [height, width] to resize to, bilinearly; None to keep the size it has.
        max_pixels: Most pixels that the file may have; Pillow's limit of 178,956,970 if None.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: The file cannot be read, is not an image, is damaged, or has too many pixels.
    """
    image = open_image(path, max_pixels=max_pixels)
    if image.mode.startswith("I"):  # 16-bit grey, stored in 16 or 32 bits; Pillow would clip it at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        if 0 < (highest := int(values.max())) < 4096:
            _warn_once(
                f"{path} is a 16-bit image whose values end at {highest}: if the camera has 12 bits or fewer, it is "
                "nearly black to the net; scale its values to 0..65535, or convert it to 8 bits"
            )
        image = Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "F":
        raise InputError(f"{path} has float pixels", expected="8 or 16 bits", fix="convert it to 8 bits")
    image.info.pop("transparency", None)  # alpha is dropped; with it Pillow would warn
    image = image.convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def is_image(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> bool:
    """Returns whether the content of a file is an image.

    Args:
        path: The file.
        max_pixels: As for `read_image`.

    Raises:
        InputError: The file cannot be read, is damaged or has too many pixels, or has the suffix of an image and
            another content.
    """
    path = as_path(path)
    check_link(path)
    try:
        with reading(path), _allowing(max_pixels), open_untrusted(path) as file:
            _check_pixels(path, file, max_pixels)
            return True
    except InputError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except Exception as error:
        # For damaged and hostile files Pillow raises nearly every type of exception.
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error
    if has_image_suffix(path):
        raise not_an_image(path)
    return False


def not_an_image(path: Path) -> InputError:
    """Returns the error for a file that should be an image and is not; it says what the file is if that is known."""
    with reading(path), path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    got, fix = f"content of an unknown format, {path.stat().st_size} bytes", "remove or replace it"
    if not path.stat().st_size:
        got = "an empty file"
    elif start.startswith(b"version https://git-lfs"):
        got, fix = "a Git-LFS pointer, not the file that it points to", "fetch it with git lfs pull"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml")):
        got, fix = "a page or document of a server", "download the file itself"
    elif start.startswith((b"{", b"[")):
        got = "JSON"
    return InputError(f"{path} is not an image", got=got, fix=fix)


def has_image_suffix(path: Path) -> bool:
    """Returns whether the name of a file ends as that of an image."""
    return Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN


def check_link(path: Path) -> None:
    """Checks that a symbolic link leads somewhere.

    Raises:
        InputError: It does not, or leads to itself.
    """
    if is_broken_link(path):
        raise InputError(
            f"{path} is a broken symbolic link",
            got=f"a link to {path.readlink()}, which cannot be reached",
            fix="remove or replace it",
        )


def open_image(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> Image.Image:
    """Opens an image and applies its EXIF rotation.

    Args:
        path: The file.
        max_pixels: As for `read_image`.

    Raises:
        InputError: The file cannot be read, is not an image, is damaged, or has too many pixels.
    """
    return decode(path, max_pixels=max_pixels).image


def decode(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> Decoded:
    """Opens an image, applies its EXIF rotation, and says what the file is.

    Raises:
        InputError: As `open_image`.
    """
    path = as_path(path)
    check_link(path)
    try:
        with reading(path), _allowing(max_pixels), open_untrusted(path) as file:
            _check_pixels(path, file, max_pixels)
            kind = str(file.format)
            lossy, grey_step = lossy_format(path, file), _grey_step(file)
            frames = 1 if kind == "MPO" else getattr(file, "n_frames", 1)  # MPO: a photo with its preview
            file.load()
            turned = _is_turned(file)
            decoded = Decoded(ImageOps.exif_transpose(file), kind, turned, lossy, grey_step)
    except InputError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise not_an_image(path) from error
        if error.__cause__ is None:
            raise
        raise InputError(f"{path} is damaged or not an image", got=error.got) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except Exception as error:  # of nearly every type, as in is_image
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error
    if frames > 1:
        _warn_once(f"{path} has {frames} pages or frames: only the first is read")
    return decoded


def _grey_step(file: Image.Image) -> int:
    # The raw mode is the last argument of the decoder, or the only one.
    raw = {args if isinstance(args, str) else next(iter(args or ()), None) for *_, args in getattr(file, "tile", ())}
    return next((step for mode, step in (("L;2", 85), ("L;4", 17)) if raw == {mode}), 1)


def stated_size(path: Path) -> tuple[int, int] | None:
    """Returns [height, width] that a file's header states, with EXIF rotation; None if the header cannot be read."""
    try:
        with reading(path), open_untrusted(path) as file:
            width, height = file.size
            turned = _is_turned(file)
    except Exception:  # of nearly every type; what is wrong with an image is said when it is read
        return None
    return (width, height) if turned else (height, width)


def _is_turned(file: Image.Image) -> bool:
    return file.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)


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


@contextmanager
def _allowing(max_pixels: int | None) -> Iterator[None]:
    """Lets Pillow open larger images than it does by itself."""
    if max_pixels is None:
        yield
        return
    with _limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None  # _check_pixels takes its place, before anything is decoded
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_pixels(path: Path, file: Image.Image, max_pixels: int | None) -> None:
    if max_pixels is not None and file.width * file.height > max_pixels:
        got = f"{file.width * file.height:,} pixels, {file.height}x{file.width}"
        raise InputError(
            f"{path} has too many pixels", got=got, expected=f"at most {max_pixels:,}", fix="raise `max_pixels`"
        )


def _too_large(path: Path, said: str) -> InputError:
    return InputError(
        f"{path} has too many pixels",
        got=said.split(",")[0],
        expected=f"at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, as a guard against files that fill the memory",
        fix="if you trust the file, predict takes more with `max_pixels`; or make the image smaller",
    )


@functools.lru_cache(1024)
def _warn_once(text: str) -> None:
    """Logs a warning; not again for the same file, which may be read several times."""
    _log.warning("%s", text)


def listed(names: Sequence[Any], most: int = _SHOWN) -> str:
    """Returns the first names as a list in words, and the number of the others: `a, b and 3 more`."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
