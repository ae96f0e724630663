"""One rule for each kind of operator: from the field of its input to the field of its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.shape_inference import Shape
from fcn_deploy.receptive_field.field import Field, Span, WholeImageError, only_if

_WINDOWS = ("Conv", "MaxPool", "AveragePool", "LpPool")
_REDUCTIONS = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")


class Known(Protocol):
    """What a rule may ask of a walk.

    Attributes:
        padded: Whether pixels that a Pad repeats or mirrors count.
    """

    padded: bool

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Returns the shape of a tensor, or None."""

    def value(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        """Returns the value of an input of a node; None if the node leaves the input out."""


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return [int(number) for number in node.attributes.get_ints(name, default)]


def _kernel(walk: Known, node: ir.Node) -> list[int]:
    if "kernel_shape" in node.attributes:
        return _ints(node, "kernel_shape", ())
    shape = walk.shape(node.inputs[1])
    if shape is None:
        raise WholeImageError(f"{node.op_type} {node.name} has weights of unknown size")
    return list(shape[2:])


def _window(walk: Known, node: ir.Node, field: Field) -> Field:
    """Conv and pooling: element i reads `stride * i - pad` and the kernel from there."""
    only_if(field.axes == (2, 3) and field.rank == 4, field, node)
    kernel = _kernel(walk, node)
    strides, dilations = _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1))
    extents = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    begins = _begins(node, extents, strides)

    def read(index: int, axis: int, span: Span) -> Span:
        first = Fraction(-begins[index])
        return span.reading(Fraction(strides[index]), first, first + extents[index])

    return field.along(read)


def _begins(node: ir.Node, extents: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Returns how much is padded before the first row and the first column."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return _ints(node, "pads", (0, 0, 0, 0))[:2]
    if auto == "VALID":
        return [0, 0]
    if any(stride != 1 for stride in strides):
        raise WholeImageError(f"{node.op_type} {node.name} pads by an amount that depends on the size of the image")
    return [(extent + (auto == "SAME_LOWER")) // 2 for extent in extents]


def _transposed(walk: Known, node: ir.Node, field: Field) -> Field:
    """ConvTranspose: element i is written by the j for which `i = stride * j - pad + tap`."""
    only_if(field.axes == (2, 3) and field.rank == 4, field, node)
    plain = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in node.attributes
    only_if(plain, field, node, "pads by an amount that depends on the size of the image")
    kernel = _kernel(walk, node)
    strides, dilations = _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1))
    begins = _ints(node, "pads", (0, 0, 0, 0))[:2]

    def read(index: int, axis: int, span: Span) -> Span:
        stride, extent = strides[index], (kernel[index] - 1) * dilations[index]
        return span.reading(
            Fraction(1, stride), Fraction(begins[index] - extent, stride), Fraction(begins[index], stride)
        )

    return field.along(read)


def _resize(walk: Known, node: ir.Node, field: Field) -> Field:
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    centred = mode in ("half_pixel", "pytorch_half_pixel")
    only_if(centred or mode == "asymmetric", field, node, f"depends on the size of the image ({mode})")
    only_if(not node.attributes.get_int("antialias", 0), field, node, "smooths by an amount that depends on the scale")
    around = 2 if node.attributes.get_string("mode", "nearest") == "cubic" else 1
    before, after = walk.shape(node.inputs[0]), walk.shape(node.outputs[0])
    if before is None or after is None:
        raise WholeImageError(f"Resize {node.name} is of unknown size")

    def read(index: int, axis: int, span: Span) -> Span:
        shrinking = Fraction(before[axis], after[axis])
        offset = (shrinking - 1) / 2 if centred else Fraction(0)
        return span.reading(shrinking, offset - around, offset + around)

    return field.along(read)


def _slice(walk: Known, node: ir.Node, field: Field) -> Field:
    starts, axes, steps = walk.value(node, 1), walk.value(node, 3), walk.value(node, 4)
    shape = walk.shape(node.inputs[0])
    if starts is None or shape is None:
        raise WholeImageError(f"Slice {node.name} is of unknown size")
    cut = [int(axis) % field.rank for axis in (axes if axes is not None else range(len(starts)))]
    by = [int(step) for step in steps] if steps is not None else [1] * len(cut)

    def read(index: int, axis: int, span: Span) -> Span:
        if axis not in cut:
            return span
        start, step = int(starts[cut.index(axis)]), by[cut.index(axis)]
        if step < 1:
            raise WholeImageError(f"Slice {node.name} reverses the image")
        first = Fraction(start if start >= 0 else max(0, start + shape[axis]))
        return span.reading(Fraction(step), first, first)

    return field.along(read)


def _pad(walk: Known, node: ir.Node, field: Field) -> Field:
    pads, axes = walk.value(node, 1), walk.value(node, 3)
    if pads is None:
        raise WholeImageError(f"Pad {node.name} is of unknown size")
    padded = [int(axis) % field.rank for axis in (axes if axes is not None else range(len(pads) // 2))]
    # How many pixels away the value of a padded pixel comes from, per pixel of padding.
    reaches = {"constant": 0, "edge": 1, "reflect": 2}
    mode = node.attributes.get_string("mode", "constant")
    only_if(mode in reaches, field, node, "repeats the image")
    reach = reaches[str(mode)] if walk.padded else 0

    def read(index: int, axis: int, span: Span) -> Span:
        if axis not in padded:
            return span
        place = padded.index(axis)
        begin, end = int(pads[place]), int(pads[place + len(padded)])
        return span.reading(
            Fraction(1), Fraction(-begin - reach * max(end, 0)), Fraction(-begin + reach * max(begin, 0))
        )

    return field.along(read)


def _rearranged(walk: Known, node: ir.Node, field: Field) -> Field:
    """DepthToSpace and SpaceToDepth: channels to blocks of pixels, or back."""
    block = int(node.attributes.get_int("blocksize", 1) or 1)
    if node.op_type == "SpaceToDepth":
        return field.along(lambda index, axis, span: span.reading(Fraction(block), Fraction(0), Fraction(block - 1)))
    within = Fraction(1 - block, block)
    return field.along(lambda index, axis, span: span.reading(Fraction(1, block), within, Fraction(0)))


def _transpose(walk: Known, node: ir.Node, field: Field) -> Field:
    order = _ints(node, "perm", range(field.rank)[::-1])
    rows, columns = (order.index(axis) for axis in field.axes)
    return replace(field, axes=(rows, columns))


def _reshape(walk: Known, node: ir.Node, field: Field) -> Field:
    """Other axes may be split and merged if rows and columns are the last two axes, before and after."""
    before, after = walk.shape(node.inputs[0]), walk.shape(node.outputs[0])
    last = field.axes == (field.rank - 2, field.rank - 1)
    if not last or before is None or after is None or len(after) < 2 or after[-2:] != before[-2:]:
        raise WholeImageError(f"Reshape {node.name} mixes rows and columns with other axes")
    return replace(field, rank=len(after), axes=(len(after) - 2, len(after) - 1))


def _reduction(walk: Known, node: ir.Node, field: Field) -> Field:
    written = node.attributes.get_ints("axes") if "axes" in node.attributes else walk.value(node, 1)
    axes = [int(axis) % field.rank for axis in written] if written is not None else []
    kept = bool(node.attributes.get_int("keepdims", 1))
    keeps_all = bool(node.attributes.get_int("noop_with_empty_axes", 0))
    over = set(axes) if axes or keeps_all else set(field.axes)
    only_if(not over & set(field.axes), field, node)
    return only_if(kept, field, node, "removes axes")


def _product(walk: Known, node: ir.Node, field: Field) -> Field:
    """MatMul over the last axis, if that is the axis of channels."""
    constant = walk.shape(node.inputs[1])
    return only_if(field.rank - 1 not in field.axes and constant is not None and len(constant) == 2, field, node)


RULES: Mapping[str, Callable[[Known, ir.Node, Field], Field]] = {
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "ConvTranspose": _transposed,
    "DepthToSpace": _rearranged,
    "MatMul": _product,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _rearranged,
    "Transpose": _transpose,
}
