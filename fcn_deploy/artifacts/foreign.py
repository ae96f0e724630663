"""What a file is that stands in place of a checkpoint or a model, judged by its first bytes."""

from __future__ import annotations

import codecs
from typing import NamedTuple

# How many bytes of a file `foreign` wants to see.
START = 4096
TRUNCATED = "copy or download it again; it may be truncated"
_DOWNLOAD = "download the file itself"
_LIBRARY = "export the net from the library that made it"


class Foreign(NamedTuple):
    """What a file is.

    Attributes:
        kind: In words, with an article.
        fix: What the user can do.
    """

    kind: str
    fix: str


def foreign(start: bytes, wanted: str) -> Foreign | None:
    """Returns what a file is that is neither a checkpoint nor a model; None if it may be one.

    Args:
        start: Its first bytes, up to `START`; of a shorter file all.
        wanted: What it should be, for the fix: `checkpoint` or `model`.
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = text[:512].lower()
    if not start:
        return Foreign("an empty file", "copy or download it again")
    if text.startswith(b"version https://git-lfs"):
        return Foreign("a Git-LFS pointer, not the file that it points to", "fetch it with git lfs pull")
    if lower.startswith((b"<!doctype", b"<html", b"<head", b"<body")) or (lower[:1] == b"<" and b"<html" in lower):
        return Foreign("an HTML page, such as a login or an error", _DOWNLOAD)
    if lower.startswith((b"<?xml", b"<")):
        return Foreign("an XML document, such as an error of a download server", _DOWNLOAD)
    for magic, kind, fix in _MAGIC:
        if start.startswith(magic):
            return Foreign(kind, fix.format(wanted))
    if start[257:262] == b"ustar":
        return Foreign("a tar archive", _UNPACK.format(wanted))
    if not start.strip(b"\0"):
        return Foreign("zeros only", TRUNCATED)
    if text[:1] in b"{[" and is_text(start):
        return Foreign("a JSON document, such as an error of a download server", _DOWNLOAD)
    return None


_UNPACK = "unpack it, and name the {} in it"
_NAME = "name the {}"
_MAGIC = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes it", _LIBRARY),
    (b"GGUF", "a GGUF file", _LIBRARY),
    (b"\x93NUMPY", "a numpy array", "save model.state_dict()"),
    (b"\x89PNG", "a PNG image", _NAME),
    (b"\xff\xd8\xff", "a JPEG image", _NAME),
    (b"%PDF", "a PDF document", _NAME),
)


def is_text(start: bytes) -> bool:
    """Returns whether the first bytes of a file are text in UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start[:256])  # the last letter may be cut off
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n" for byte in start[:256])
