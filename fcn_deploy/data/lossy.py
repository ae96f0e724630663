"""Which image files change values when they are written: what ground truth must not be saved as."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

# Pillow's names of TIFF compressions that lose.
_TIFF = ("jpeg", "tiff_jpeg", "webp")
_SEARCHED = 1 << 16  # bytes in which a header is searched


def lossy_format(path: Path, image: Image.Image) -> str | None:
    """Returns what a file is, with its article, if its compression changes values; else None.

    Args:
        path: Of the file.
        image: As Pillow opened it.
    """
    kind = image.format
    if kind in ("JPEG", "MPO"):
        return "a JPEG"
    if kind == "AVIF":
        return "an AVIF"
    if kind == "TIFF" and image.info.get("compression") in _TIFF:
        return "a TIFF with JPEG or WebP compression"
    if kind == "WEBP" and _is_lossy_webp(_start(path)):
        return "a WebP with loss"
    if kind == "JPEG2000" and _is_lossy_jpeg2000(_start(path)):
        return "a JPEG 2000 with loss"
    return None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SEARCHED)


def _is_lossy_webp(start: bytes) -> bool:
    """Looks for the chunk of pixels: `VP8 ` has loss, `VP8L` has none."""
    place = 12  # after "RIFF", the size and "WEBP"
    while place + 8 <= len(start):
        name, size = start[place : place + 4], int.from_bytes(start[place + 4 : place + 8], "little")
        if name in (b"VP8 ", b"VP8L", b"ANMF"):
            # A frame of an animation has 16 bytes of its own before the chunk of its pixels.
            return (start[place + 24 : place + 28] if name == b"ANMF" else name) == b"VP8 "
        place += 8 + size + size % 2
    return False


def _is_lossy_jpeg2000(start: bytes) -> bool:
    """Looks at the wavelet in the COD marker: 0 is the irreversible 9-7."""
    place = start.find(b"\xff\x52")
    return place >= 0 and start[place + 13 : place + 14] == b"\0"
