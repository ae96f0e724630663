"""Image files for tests, as arrays say."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PALETTE = [(10, 20, 30), (200, 0, 100), (255, 255, 255), (0, 128, 0)]
INDICES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4


def save_palette(path, **options):
    """Writes INDICES as an image with PALETTE."""
    image = Image.fromarray(INDICES).convert("P")
    image.putdata(INDICES.ravel().tolist())
    image.putpalette([channel for color in PALETTE for channel in color])
    image.save(path, **options)
    return path


def save(array, path, **options):
    """Writes an array as an image and returns the path."""
    Image.fromarray(array).save(path, **options)
    return path


def encoded(array, file_format, **options):
    """Returns the content of an image file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, file_format, **options)
    return file.getvalue()


def png_claiming(width, height):
    """A PNG whose header claims a size and whose data is short."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def png_of_bits(values, bits, palette=None):
    """A PNG with 1, 2 or 4 bits a pixel, of grey or of a palette; Pillow writes neither.

    Args:
        values: Integer [H, W].
        bits: Of a pixel.
        palette: The RGB colours of the palette; None for grey.
    """

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for row in values:
        digits = "".join(format(int(value), f"0{bits}b") for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if palette is None else 3, 0, 0, 0)
    colours = b"" if palette is None else chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes())
    data = chunk(b"IHDR", header) + colours + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def shown(images):
    """Returns the red value of the first pixel of each image."""
    return [int(image[0, 0, 0]) for image in images]
