"""Labels as pictures: index images, colour masks, overlays, and panels with a legend."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.runtime import colorize, overlay
from fcn_deploy.text import printable

Picture = NDArray[Any]
_MARGIN, _LINE, _SWATCH = 8, 18, 12


def index_image(image: Picture, labels: Picture, spec: ModelSpec) -> Picture:
    """Returns the labels themselves: uint8 [H, W] for up to 256 classes, else uint16 [H, W]."""
    return labels.astype(np.uint8 if spec.num_classes <= 256 else np.uint16)


def color_mask(image: Picture, labels: Picture, spec: ModelSpec) -> Picture:
    """Returns the labels in the colours of their classes, uint8 [H, W, 3]."""
    return colorize(labels, spec.palette)


def overlaid(image: Picture, labels: Picture, spec: ModelSpec) -> Picture:
    """Returns the image with the colours of its labels over it, uint8 [H, W, 3]."""
    return overlay(image, labels, spec.palette)


def panel(image: Picture, labels: Picture, spec: ModelSpec) -> Picture:
    """Returns the image, the overlay and a legend of the classes that occur, side by side, uint8 [H', W', 3].

    If the legend is longer than the image, the panel is as tall as the legend.
    """
    legend = _legend(labels, spec)
    height = max(image.shape[0], legend.shape[0])
    parts = (image, overlaid(image, labels, spec), legend)
    return np.hstack([_padded(part, height) for part in parts])


KINDS: Mapping[str, Callable[[Picture, Picture, ModelSpec], Picture]] = {
    "labels": index_image,
    "color": color_mask,
    "overlay": overlaid,
    "panel": panel,
}


def encode_png(picture: Picture) -> bytes:
    """Returns the content of a PNG file.

    Args:
        picture: uint8 or uint16 [H, W], or uint8 [H, W, 3].
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _legend(labels: Picture, spec: ModelSpec) -> Picture:
    """Draws a swatch, the name and the share of each class that occurs, the largest share first."""
    counts = np.bincount(labels.ravel(), minlength=spec.num_classes)
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    lines = [f"{printable(spec.classes[index])} {counts[index] / labels.size:.1%}" for index in order]
    font = ImageFont.load_default(size=12)
    width = int(max(font.getlength(line) for line in lines)) + 3 * _MARGIN + _SWATCH
    canvas = Image.new("RGB", (width, 2 * _MARGIN + _LINE * len(lines)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (index, line) in enumerate(zip(order, lines, strict=True)):
        top = _MARGIN + row * _LINE
        swatch = (_MARGIN, top, _MARGIN + _SWATCH, top + _SWATCH)
        draw.rectangle(swatch, fill=spec.palette[index], outline="black")
        draw.text((2 * _MARGIN + _SWATCH, top - 1), line, fill="black", font=font)
    return np.asarray(canvas)


def _padded(picture: Picture, height: int) -> Picture:
    return np.pad(picture, ((0, height - picture.shape[0]), (0, 0), (0, 0)), constant_values=255)
