"""Labels as pictures: index images, colour masks, overlays, and panels with a legend."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.reporting.legend import legend_of_classes, legend_of_shares, padded
from fcn_deploy.runtime import colorize, overlay

Picture = NDArray[Any]


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
    return _side_by_side(image, overlaid(image, labels, spec), legend_of_shares(labels, spec))


def panel_of_video(image: Picture, labels: Picture, spec: ModelSpec) -> Picture:
    """Returns the image, the overlay and a legend of all classes, side by side: of one size for images of one size.

    Height and width are even, which is what players of video expect: uint8 [H', W', 3], at least as tall as the image.
    """
    legend = legend_of_classes(spec, image.shape[0])
    picture = _side_by_side(image, overlaid(image, labels, spec), legend)
    height, width = (size + size % 2 for size in picture.shape[:2])
    return padded(picture, height, width)


Painter = Callable[[Picture, Picture, ModelSpec], Picture]

KINDS: Mapping[str, Painter] = {
    "labels": index_image,
    "color": color_mask,
    "overlay": overlaid,
    "panel": panel,
}
KINDS_OF_VIDEO: Mapping[str, Painter] = {**KINDS, "panel": panel_of_video}


def encode_png(picture: Picture) -> bytes:
    """Returns the content of a PNG file.

    Args:
        picture: uint8 or uint16 [H, W], or uint8 [H, W, 3].
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _side_by_side(image: Picture, overlay: Picture, legend: Picture) -> Picture:
    height = max(image.shape[0], legend.shape[0])
    return np.hstack([padded(part, height) for part in (image, overlay, legend)])
