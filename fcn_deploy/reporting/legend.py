"""Legends: a swatch and the name of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.text import printable

Picture = NDArray[Any]

_MARGIN, _LINE, _SWATCH = 8, 18, 12
_ROWS = 32  # of the legend that stands alone


def legend_of_classes(spec: ModelSpec, height: int | None = None) -> Picture:
    """Draws every class in the order of the labels; the same for every image, so that it stands still in a video.

    Args:
        spec: Of the net.
        height: In pixels; as many columns as it takes. If None, columns of up to 32 classes.

    Returns:
        uint8 [H, W, 3]; higher than `height` only if that holds no class.
    """
    rows = _ROWS if height is None else max((height - 2 * _MARGIN) // _LINE, 1)
    entries = [(printable(name), color) for name, color in zip(spec.classes, spec.palette, strict=True)]
    columns = [draw_legend(entries[start : start + rows]) for start in range(0, len(entries), rows)]
    tallest = max(column.shape[0] for column in columns)
    return np.hstack([padded(column, tallest) for column in columns])


def legend_of_shares(labels: Picture, spec: ModelSpec) -> Picture:
    """Draws each class that occurs with its share of the pixels, the largest share first.

    Args:
        labels: Integer [H, W].
        spec: Of the net.
    """
    counts = np.bincount(labels.ravel(), minlength=spec.num_classes)
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    lines = [(f"{printable(spec.classes[index])} {counts[index] / labels.size:.1%}", index) for index in order]
    return draw_legend([(line, spec.palette[index]) for line, index in lines])


def draw_legend(entries: Sequence[tuple[str, Rgb]]) -> Picture:
    """Draws a line with a swatch of each colour, one below the other, on white.

    Args:
        entries: Text and colour of each line, at least one.

    Returns:
        uint8 [H, W, 3].
    """
    font = ImageFont.load_default(size=12)
    width = int(max(font.getlength(line) for line, _ in entries)) + 3 * _MARGIN + _SWATCH
    canvas = Image.new("RGB", (width, 2 * _MARGIN + _LINE * len(entries)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (line, color) in enumerate(entries):
        top = _MARGIN + row * _LINE
        swatch = (_MARGIN, top, _MARGIN + _SWATCH, top + _SWATCH)
        draw.rectangle(swatch, fill=color, outline="black")
        draw.text((2 * _MARGIN + _SWATCH, top - 1), line, fill="black", font=font)
    return np.asarray(canvas)


def padded(picture: Picture, height: int, width: int | None = None) -> Picture:
    """Returns a picture with white below it and at its right, uint8 [height, width, 3]."""
    right = 0 if width is None else width - picture.shape[1]
    return np.pad(picture, ((0, height - picture.shape[0]), (0, right), (0, 0)), constant_values=255)
