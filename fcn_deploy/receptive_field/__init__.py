"""The receptive field of a net: which pixels of the image the logits of one pixel depend on, read from the graph.

Each tensor with rows and columns is described by an interval: element i of an axis depends on pixels from
`step * i + low` to `step * i + high`. A convolution, a pooling or an upsampling turns the interval of its input into
that of its output (Araujo, Norris and Sim 2019, Computing Receptive Fields of Convolutional Neural Networks,
https://distill.pub/2019/computing-receptive-fields/, extended to transposed layers); an addition or a concatenation
gives the union. A node that reads an element which a smaller image would not have also depends on how far the image
reaches, even if the element depends on no pixel there. If a node sees the whole image, or depends on the size of the
image, the net has no receptive field and cannot be run in tiles.
"""

from __future__ import annotations

import logging
from math import ceil, lcm

import onnx_ir as ir

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.receptive_field import ReceptiveField
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.receptive_field.field import WholeImageError
from fcn_deploy.receptive_field.walk import Walk

_log = logging.getLogger(__name__)

# A multiple of the usual strides.
_UNIT = 3840


def receptive_field(model: ir.Model, *, fixed: ImageShape | None = None, divisor: int = 1) -> ReceptiveField:
    """Computes the receptive field of a net.

    Args:
        model: Input `image`, float [N, 3, H, W], output `logits`, [N, C, H, W].
        fixed: The one image shape that the net takes; None if it takes any.
        divisor: The graph pads images to multiples of this.

    Raises:
        InputError: The net cannot be run in tiles; the message names the node that prevents it.
    """
    try:
        unit = lcm(_UNIT, divisor)
        unit = lcm(unit, _alignment(_walk(model, fixed or ImageShape(1, unit, unit))))
        aligned, larger = fixed or ImageShape(1, unit, unit), fixed or ImageShape(1, 2 * unit, 3 * unit)
        plain = _walk(model, aligned)
        whole = _walk(model, aligned, edges=True)
        if not (_walk(model, larger).same_as(plain) and _walk(model, larger, edges=True).same_as(whole)):
            raise WholeImageError("it reads other pixels in larger images")
    except WholeImageError as error:
        raise InputError("the net cannot be run in tiles", got=str(error)) from error
    alignment = lcm(_alignment(plain), divisor)
    odd = [] if fixed else [ImageShape(1, unit + top, 2 * unit + left) for top, left in _remainders(alignment)]
    any_size = fixed is None and all(_is_same(model, images, plain) for images in odd)
    reach = whole.output
    for images in odd if any_size else ():
        reach = reach.union(_walk(model, images, padded=True).output)
    rows, columns = reach.spans
    return ReceptiveField(
        top=max(0, ceil(-rows.low)),
        bottom=max(0, ceil(rows.high)),
        left=max(0, ceil(-columns.low)),
        right=max(0, ceil(columns.high)),
        alignment=alignment,
        any_size=any_size,
    )


def find_receptive_field(
    model: ir.Model, fixed: ImageShape | None = None, padding: Padding | None = None
) -> ReceptiveField | None:
    """Computes the receptive field of a net; None if it cannot be run in tiles, and the debug log says why.

    Args:
        model: As for `receptive_field`, and so the next.
        fixed: The one image shape that the net takes; None if it takes any.
        padding: How the graph pads images; None if it does not.
    """
    try:
        return receptive_field(model, fixed=fixed, divisor=padding.divisor if padding else 1)
    except InputError as error:
        _log.debug("%s", error)
        return None


def _alignment(walk: Walk) -> int:
    return lcm(*(span.step.numerator for field in walk.fields.values() for span in field.spans))


def _remainders(alignment: int) -> list[tuple[int, int]]:
    """Returns rows and columns beyond a multiple of the alignment: few, many, and about half of it.

    One remainder, for example 1, is not enough: a number that is halved and rounded is the same for 0 and for 1.
    """
    half = alignment // 2
    pairs = ((1, alignment - 1), (half, 2), (half + 1, 3))
    return [(top % alignment, left % alignment) for top, left in pairs]


def _is_same(model: ir.Model, images: ImageShape, plain: Walk) -> bool:
    try:
        return _walk(model, images).same_as(plain)
    except WholeImageError:
        return False


def _walk(model: ir.Model, images: ImageShape, *, padded: bool = False, edges: bool = False) -> Walk:
    """Walks a graph to its end, for images of one shape.

    Raises:
        WholeImageError: It is unknown what a tensor depends on, or the logits are not those of a segmentation net.
    """
    walk = Walk(model, images, padded, edges)
    for node in model.graph:
        walk.add(node)
    field = walk.fields.get(walk.name)
    if field is None:
        raise WholeImageError("its logits do not depend on the image")
    if (field.rank, field.axes) != (4, (2, 3)) or any(span.step != 1 for span in field.spans):
        raise WholeImageError("its logits are not [N, C, H, W] of the size of the image")
    return walk
