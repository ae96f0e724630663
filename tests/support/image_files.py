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


def shown(images):
    """Returns the red value of the first pixel of each image."""
    return [int(image[0, 0, 0]) for image in images]
