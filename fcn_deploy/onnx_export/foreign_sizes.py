"""Finds the sizes of images that a model of another tool takes, and the padding that it needs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fcn_deploy.artifacts.geometry import AutoPadding, Padding
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.graph.shape_inference import tensor_types
from fcn_deploy.onnx_export.comparison import SHAPES
from fcn_deploy.onnx_export.foreign import ForeignImage
from fcn_deploy.onnx_export.foreign_backend import REAL, ForeignBackend

_log = logging.getLogger(__name__)

# From these sides on the sizes of `SHAPES` are tried until a net takes all of them.
_LEAST_SIDES = (33, 67, 131, 263)
# A net that takes the smallest images takes all.
_FEW = 9
_POWERS = (2, 4, 8, 16, 32, 64, 128, 256)
_SCANNED = range(32, 97)


def padding_needed(
    backend: ForeignBackend, image: ForeignImage, wanted: Padding | AutoPadding | None
) -> Padding | None:
    """Returns how images are padded for a model; warns of padding that it does not need.

    Args:
        backend: Of the model, without padding.
        image: What it takes.
        wanted: What the user says: a padding, one that is to be found, or none.

    Returns:
        The padding that was stated or found; None if images are not padded.

    Raises:
        InputError: No divisor helps.
    """
    if wanted is None:
        return None
    needless = all(backend.takes(shape) is None for shape in _shapes(image, _LEAST_SIDES[-1]))
    if isinstance(wanted, Padding):
        if needless:
            _log.warning("the model takes every size from some smallest one on, without `size_divisor`")
        return wanted
    if needless:
        return None
    divisor = smallest_divisor(backend, image)
    if divisor is None:
        raise InputError(
            "the model does not work at every size, nor at multiples of a number",
            got=f"at {image.at(REAL)}: {backend.takes(image.at(REAL))}",
            fix=_one_size(image),
        )
    return Padding(divisor, wanted.mode)


def smallest_divisor(backend: ForeignBackend, image: ForeignImage) -> int | None:
    """Returns the smallest number whose multiples a model takes as height and width.

    Args:
        backend: Of the model, without padding.
        image: What it takes.

    Returns:
        A power of two if one up to 256 works, else what the sizes from 32 to 96 that work have in common; 2 or more.
        None if no multiples work.
    """
    for divisor in _POWERS:
        if _takes_multiples(backend, image, divisor):
            return divisor
    works = (side for side in _SCANNED if backend.takes(image.at(ImageShape(1, side, side))) is None)
    common = math.gcd(*works)
    return common if common > 1 and _takes_multiples(backend, image, common) else None


def _takes_multiples(backend: ForeignBackend, image: ForeignImage, divisor: int) -> bool:
    first = -(-64 // divisor)  # a net may need a smallest size as well
    sides = [(first + step) * divisor for step in range(4)]
    sizes = ((1, sides[0], sides[3]), (2, sides[1], sides[0]), (1, sides[3], sides[1]))
    return all(backend.takes(image.at(ImageShape(*size))) is None for size in sizes)


def _one_size(image: ForeignImage) -> str:
    return f'adopt it for one size that it takes, such as `shape="{image.at(ImageShape(1, 512, 512))}"`'


def _shapes(image: ForeignImage, side: int) -> list[ImageShape]:
    """The sizes of `SHAPES`, larger by as much as `side` is than the smallest of them, and a real one."""
    more = side - _LEAST_SIDES[0]
    larger = (ImageShape(each.batch, each.height + more, each.width + more) for each in SHAPES[1:])
    return list(dict.fromkeys(map(image.at, (*larger, REAL))))


def sizes_taken(
    backend: ForeignBackend, image: ForeignImage, model: ir.Model
) -> tuple[list[ImageShape], tuple[int, int]]:
    """Finds out at which sizes a model works.

    Args:
        backend: Of the model.
        image: What it takes.
        model: As adopted. A map without pixels is no error for ONNX Runtime, which then gives any numbers.

    Returns:
        The shapes to compare at, and the smallest height and width from which on it takes every size; 1 and 1 if they
        are fixed.

    Raises:
        InputError: It states that it takes any size, but does not.
    """
    _, height, width = image.sizes
    resizable = height is None or width is None
    first = None
    for side in _LEAST_SIDES if resizable else (1,):
        shapes = _shapes(image, side)
        failed = next(((shape, why) for shape in shapes if (why := _misfit(backend, model, shape))), None)
        if failed is None and not resizable:
            return shapes, (1, 1)
        if failed is None:
            least = _least_side(backend, image, model, side)
            smallest = image.at(ImageShape(1, least, least))
            return list(dict.fromkeys((smallest, *shapes))), (smallest.height, smallest.width)
        first = first or failed
    assert first is not None
    divisor = None
    if resizable:
        backend.padding = None  # it is not one that helps
        divisor = smallest_divisor(backend, image)
    raise InputError(
        "the model does not work at every size, though it says so",
        got=f"at {first[0]}: {first[1]}",
        expected="logits as large as the image, at every batch, height and width",
        fix=f"add `size_divisor={divisor}`, the smallest that works: it pads images in the graph and crops the logits"
        if divisor
        else _one_size(image),
    )


def check_batch(backend: ForeignBackend, shapes: Sequence[ImageShape], limit: float) -> None:
    """Checks that the logits of an image depend on this image only, and are the same each time.

    Args:
        backend: Of the model.
        shapes: What it takes.
        limit: By how much they may differ, as a share of their range.

    Raises:
        InputError: They do not, as with batch normalisation or dropout in training mode.
    """
    shape = max(shapes, key=lambda each: (min(each.batch, 2), -each.height * each.width))
    images = backend.noise(shape)
    together = backend.infer({"image": images})["logits"]
    # The batch keeps its size: a model may take only this one.
    alone = backend.infer({"image": np.broadcast_to(images[-1:], images.shape).copy()})["logits"]
    error = float(np.abs(together[-1] - alone[-1]).max()) / max(float(np.ptp(together)), 1e-6)
    if not error <= limit:
        raise InputError(
            "the model mixes the images of a batch, or gives another result each time",
            got=f"logits that differ by {error:.1e} of their range from those of the same image alone",
            expected="logits of an image that depend on this image only",
            fix="export it in evaluation mode, without randomness",
        )


def _misfit(backend: ForeignBackend, model: ir.Model, shape: ImageShape) -> str | None:
    """Returns why images of a shape cannot be taken; None if they can."""
    why = backend.takes(shape)
    if why is None:
        types = tensor_types(model, shape)
        maps = [types.get(str(value.name)) for node in model.graph for value in node.outputs]
        empty = any(each is not None and len(each.shape or ()) == 4 and 0 in (each.shape or ()) for each in maps)
        why = "a map has no pixels" if empty else None
    return why


def _least_side(backend: ForeignBackend, image: ForeignImage, model: ir.Model, works: int) -> int:
    """Returns the smallest side from which on a model takes every square, and with it a longer side."""

    def fits(side: int) -> bool:
        shapes = (ImageShape(1, side, side), ImageShape(1, side, 2 * works + 1), ImageShape(1, 2 * works + 1, side))
        return all(_misfit(backend, model, image.at(shape)) is None for shape in shapes)

    if all(map(fits, range(1, _FEW))):
        return 1
    return next((side + 1 for side in range(works - 1, 0, -1) if not fits(side)), 1)
