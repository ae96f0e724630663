"""The receptive field of a net: which pixels of the image the logits of one pixel depend on, read off the graph.

Each tensor with rows and columns is described by an interval: element i of an axis depends on pixels from
`step * i + low` to `step * i + high`. A convolution, a pooling or an upsampling turns the interval of what it reads
into that of what it makes (Araujo, Norris and Sim 2019, Computing Receptive Fields of Convolutional Neural Networks,
https://distill.pub/2019/computing-receptive-fields/, with transposed layers added); behind an addition or a
concatenation stands the union. What reads an element that a smaller image would not have depends on that image going so
far, even if the element does not. A net for which that cannot be said, because something in it sees the whole image or
goes by its size, cannot be run in tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from math import ceil, lcm
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.errors import InputError
from fcn_deploy.shapes import Shape, tensor_facts
from fcn_deploy.spec import ImageShape, ReceptiveField

# A multiple of the usual strides.
_UNIT = 3840

# fmt: off
_ELEMENTWISE = frozenset((
    "Abs", "Add", "And", "BatchNormalization", "Cast", "Ceil", "Clip", "DequantizeLinear", "Div", "Dropout", "Elu",
    "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less",
    "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuantizeLinear", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh",
    "ThresholdedRelu", "Where",
))
# fmt: on
# They have an axis they go along, which must not be one of the image's; the default where there is one.
_ALONG_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Concat": 1, "Split": 0, "LayerNormalization": -1}
_REDUCTIONS = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
# Their further inputs are of the channels, or say how the first is treated.
_BY_CHANNEL = ("BatchNormalization", "LayerNormalization", "QuantizeLinear", "DequantizeLinear", "Split", "Dropout")
_WINDOWS = ("Conv", "MaxPool", "AveragePool", "LpPool")


@dataclass(frozen=True)
class _Span:
    """What elements of an axis depend on: element i on pixels `step * i + low` to `step * i + high`."""

    step: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def reading(self, stride: Fraction, first: Fraction, last: Fraction) -> _Span:
        """Returns the span of what reads elements `stride * i + first` to `stride * i + last` of this axis."""
        return _Span(self.step * stride, self.low + self.step * first, self.high + self.step * last)

    def union(self, other: _Span) -> _Span:
        return _Span(self.step, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class _Field:
    """What a tensor depends on, and where its rows and columns stand among its axes."""

    rank: int
    axes: tuple[int, int]
    spans: tuple[_Span, _Span]

    def along(self, change: Callable[[int, int, _Span], _Span]) -> _Field:
        """Returns it with `change(index, axis, span)` for either span."""
        changed = (
            change(index, axis, span) for index, (axis, span) in enumerate(zip(self.axes, self.spans, strict=True))
        )
        return replace(self, spans=tuple(changed))  # type: ignore[arg-type]

    def union(self, other: _Field) -> _Field:
        return self.along(lambda index, axis, span: span.union(other.spans[index]))


class _WholeImageError(Exception):
    """A node that keeps a net from being run in tiles; its text says which and why."""


def receptive_field(model: ir.Model, *, fixed: ImageShape | None = None, divisor: int = 1) -> ReceptiveField:
    """Computes the receptive field of a net.

    Args:
        model: Input `image`, float [N, 3, H, W], output `logits`, [N, C, H, W].
        fixed: The one shape of images it takes; None where it takes any.
        divisor: To multiples of which the graph pads images.

    Raises:
        InputError: The net cannot be run in tiles; the message says which node stands in the way.
    """
    try:
        unit = lcm(_UNIT, divisor)
        unit = lcm(unit, _alignment(_walk(model, fixed or ImageShape(1, unit, unit))))
        aligned, larger = fixed or ImageShape(1, unit, unit), fixed or ImageShape(1, 2 * unit, 3 * unit)
        plain = _walk(model, aligned)
        whole = _walk(model, aligned, edges=True)
        if not (_walk(model, larger).same_as(plain) and _walk(model, larger, edges=True).same_as(whole)):
            raise _WholeImageError("it reads other pixels in larger images")
    except _WholeImageError as error:
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


def _alignment(walk: _Walk) -> int:
    return lcm(*(span.step.numerator for field in walk.fields.values() for span in field.spans))


def _remainders(alignment: int) -> list[tuple[int, int]]:
    """Rows and columns that are left over, where a size is no multiple of the alignment: few, many, and about half.

    One alone, say 1, would not do: what is halved and rounded is the same for 0 and for 1.
    """
    half = alignment // 2
    pairs = ((1, alignment - 1), (half, 2), (half + 1, 3))
    return [(top % alignment, left % alignment) for top, left in pairs]


def _is_same(model: ir.Model, images: ImageShape, plain: _Walk) -> bool:
    try:
        return _walk(model, images).same_as(plain)
    except _WholeImageError:
        return False


def _walk(model: ir.Model, images: ImageShape, *, padded: bool = False, edges: bool = False) -> _Walk:
    """Walks a graph to its end, for images of one shape.

    Raises:
        _WholeImageError: What a tensor depends on cannot be said, or is not what a segmentation net's logits do.
    """
    walk = _Walk(model, images, padded, edges)
    for node in model.graph:
        walk.add(node)
    field = walk.fields.get(walk.name)
    if field is None:
        raise _WholeImageError("its logits do not depend on the image")
    if (field.rank, field.axes) != (4, (2, 3)) or any(span.step != 1 for span in field.spans):
        raise _WholeImageError("its logits are not [N, C, H, W] of the size of the image")
    return walk


class _Walk:
    """A walk through a graph, for images of one shape.

    Args:
        model: The net.
        images: Their shape.
        padded: Whether that which a Pad repeats or mirrors counts.
        edges: Whether it counts how far the image has to go for an element to be there at all.

    Attributes:
        name: Of the output.
        fields: What tensors depend on, as far as the walk has come; those that depend on no pixel are not in it.
        numbers: What is computed of the size of the image and meets pixels, by node.
    """

    def __init__(self, model: ir.Model, images: ImageShape, padded: bool, edges: bool) -> None:
        self._facts = tensor_facts(model, images)
        (image,) = (value for value in model.graph.inputs if value.name not in model.graph.initializers)
        self._size = (images.height, images.width)
        self._edges = edges
        self.padded = padded
        self.name = str(model.graph.outputs[0].name)
        self.fields: dict[str, _Field] = {str(image.name): _Field(4, (2, 3), (_Span(), _Span()))}
        self.numbers: dict[str, bytes] = {}

    @property
    def output(self) -> _Field:
        """What the logits depend on."""
        return self.fields[self.name]

    def same_as(self, other: _Walk) -> bool:
        """Whether tensors depend on the same, and numbers are the same, at another size."""
        return (self.fields, self.numbers) == (other.fields, other.numbers)

    def add(self, node: ir.Node) -> None:
        """Adds the outputs of a node whose inputs have been added."""
        known = [self.fields.get(str(value.name)) if value is not None else None for value in node.inputs]
        # The sizes of a tensor are no pixels; what is computed of them alone is known already.
        if node.op_type not in ("Shape", "Size") and any(known):
            field = self._field(node, known)
            # What else a node gives, such as the places of maxima, is not followed.
            for output in node.outputs if node.op_type == "Split" else node.outputs[:1]:
                self.fields[str(output.name)] = self._to_edges(output, field) if self._edges else field

    def _to_edges(self, value: ir.Value, field: _Field) -> _Field:
        """Returns a field that holds what keeps elements from being missing at the edges of a smaller image."""
        shape = self.shape(value)
        if shape is None:
            raise _WholeImageError(f"{value.name} is of unknown size")

        def reach(index: int, axis: int, span: _Span) -> _Span:
            # Element -1 is missing in an image that begins at 0, and element `count` in one that ends at `size`.
            first = max(span.step - 1, Fraction(0))
            missing = self._size[index] - span.step * shape[axis]
            return _Span(span.step, min(span.low, first), max(span.high, missing))

        return field.along(reach)

    def _field(self, node: ir.Node, known: Sequence[_Field | None]) -> _Field:
        if node.op_type in _ELEMENTWISE:
            return self._union(node, known)
        if node.op_type in _ALONG_AXIS:
            field = self._union(node, known)
            axis = node.attributes.get_int("axis", _ALONG_AXIS[node.op_type]) % field.rank
            along = range(axis, field.rank) if node.op_type == "LayerNormalization" else (axis,)
            return _only_if(not set(along) & set(field.axes), field, node)
        first = known[0]
        if first is None or any(known[1:]):
            raise _WholeImageError(f"{node.op_type} {node.name} mixes pixels in a way that is not followed")
        if node.op_type not in _RULES:
            raise _WholeImageError(f"{node.op_type} {node.name} may see the whole image")
        return _RULES[node.op_type](self, node, first)

    def _union(self, node: ir.Node, known: Sequence[_Field | None]) -> _Field:
        """What a node depends on that treats every pixel of all its inputs alike."""
        fields = [field for field in known if field is not None]
        first = max(fields, key=lambda field: field.rank)
        same = all((field.rank, field.axes) == (first.rank, first.axes) for field in fields)
        steps = {tuple(span.step for span in field.spans) for field in fields}
        _only_if(same and len(steps) == 1, first, node, "puts together maps of different scales")
        for value, field in zip(node.inputs, known, strict=True):
            if value is not None and field is None:
                self._check_uniform(node, value, first)
        return reduce(_Field.union, fields, first)

    def _check_uniform(self, node: ir.Node, value: ir.Value, field: _Field) -> None:
        """Refuses what is other for one place of the image than for another, such as an embedding of positions."""
        if node.op_type in _BY_CHANNEL:
            return
        shape = self.shape(value)
        if shape is None:
            raise _WholeImageError(f"{node.op_type} {node.name} reads a tensor of unknown size")
        from_behind = [field.rank - axis for axis in field.axes]
        if any(len(shape) >= axis and shape[-axis] > 1 for axis in from_behind):
            raise _WholeImageError(f"{node.op_type} {node.name} goes by the place in the image")
        if value.const_value is not None:
            return
        if (number := self._facts.values.get(str(value.name))) is None:
            raise _WholeImageError(f"{node.op_type} {node.name} goes by a value that is not known before the net runs")
        self.numbers[f"{node.name}/{value.name}"] = number.tobytes()

    def shape(self, value: ir.Value | None) -> Shape | None:
        known = self._facts.types.get(str(value.name)) if value is not None else None
        return known.shape if known else None

    def value(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        """What an input of a node is, where it is given; unknown values raise."""
        if index >= len(node.inputs) or node.inputs[index] is None:
            return None
        value = self._facts.values.get(str(node.inputs[index].name))  # type: ignore[union-attr]
        if value is None:
            raise _WholeImageError(f"{node.op_type} {node.name} goes by a value that is not known before the net runs")
        return value


def _only_if(fits: bool, field: _Field, node: ir.Node, why: str = "goes along rows or columns") -> _Field:
    if not fits:
        raise _WholeImageError(f"{node.op_type} {node.name} {why}")
    return field


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return [int(number) for number in node.attributes.get_ints(name, default)]


def _kernel(walk: _Walk, node: ir.Node) -> list[int]:
    if "kernel_shape" in node.attributes:
        return _ints(node, "kernel_shape", ())
    shape = walk.shape(node.inputs[1])
    if shape is None:
        raise _WholeImageError(f"{node.op_type} {node.name} has weights of unknown size")
    return list(shape[2:])


def _window(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    """Conv and pooling: element i reads `stride * i - pad` and the kernel from there."""
    _only_if(field.axes == (2, 3) and field.rank == 4, field, node)
    kernel = _kernel(walk, node)
    strides, dilations = _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1))
    extents = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    begins = _begins(node, extents, strides)

    def read(index: int, axis: int, span: _Span) -> _Span:
        first = Fraction(-begins[index])
        return span.reading(Fraction(strides[index]), first, first + extents[index])

    return field.along(read)


def _begins(node: ir.Node, extents: Sequence[int], strides: Sequence[int]) -> list[int]:
    """How much is padded in front of rows and columns."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return _ints(node, "pads", (0, 0, 0, 0))[:2]
    if auto == "VALID":
        return [0, 0]
    if any(stride != 1 for stride in strides):
        raise _WholeImageError(f"{node.op_type} {node.name} is padded by as much as the size of the image asks for")
    return [(extent + (auto == "SAME_LOWER")) // 2 for extent in extents]


def _transposed(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    """ConvTranspose: element i is written by the j for which `i = stride * j - pad + tap`."""
    _only_if(field.axes == (2, 3) and field.rank == 4, field, node)
    plain = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in node.attributes
    _only_if(plain, field, node, "is padded by as much as the size of the image asks for")
    kernel = _kernel(walk, node)
    strides, dilations = _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1))
    begins = _ints(node, "pads", (0, 0, 0, 0))[:2]

    def read(index: int, axis: int, span: _Span) -> _Span:
        stride, extent = strides[index], (kernel[index] - 1) * dilations[index]
        return span.reading(
            Fraction(1, stride), Fraction(begins[index] - extent, stride), Fraction(begins[index], stride)
        )

    return field.along(read)


def _resize(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    centred = mode in ("half_pixel", "pytorch_half_pixel")
    _only_if(centred or mode == "asymmetric", field, node, f"goes by the size of the image ({mode})")
    _only_if(not node.attributes.get_int("antialias", 0), field, node, "smooths by the scale")
    around = 2 if node.attributes.get_string("mode", "nearest") == "cubic" else 1
    before, after = walk.shape(node.inputs[0]), walk.shape(node.outputs[0])
    if before is None or after is None:
        raise _WholeImageError(f"Resize {node.name} is of unknown size")

    def read(index: int, axis: int, span: _Span) -> _Span:
        shrinking = Fraction(before[axis], after[axis])
        offset = (shrinking - 1) / 2 if centred else Fraction(0)
        return span.reading(shrinking, offset - around, offset + around)

    return field.along(read)


def _slice(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    starts, axes, steps = walk.value(node, 1), walk.value(node, 3), walk.value(node, 4)
    shape = walk.shape(node.inputs[0])
    if starts is None or shape is None:
        raise _WholeImageError(f"Slice {node.name} is of unknown size")
    cut = [int(axis) % field.rank for axis in (axes if axes is not None else range(len(starts)))]
    by = [int(step) for step in steps] if steps is not None else [1] * len(cut)

    def read(index: int, axis: int, span: _Span) -> _Span:
        if axis not in cut:
            return span
        start, step = int(starts[cut.index(axis)]), by[cut.index(axis)]
        if step < 1:
            raise _WholeImageError(f"Slice {node.name} turns the image over")
        first = Fraction(start if start >= 0 else max(0, start + shape[axis]))
        return span.reading(Fraction(step), first, first)

    return field.along(read)


def _pad(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    pads, axes = walk.value(node, 1), walk.value(node, 3)
    if pads is None:
        raise _WholeImageError(f"Pad {node.name} is of unknown size")
    padded = [int(axis) % field.rank for axis in (axes if axes is not None else range(len(pads) // 2))]
    # How far from its place a pixel of the padding has its value from, for each that is added.
    reaches = {"constant": 0, "edge": 1, "reflect": 2}
    mode = node.attributes.get_string("mode", "constant")
    _only_if(mode in reaches, field, node, "repeats the image")
    reach = reaches[str(mode)] if walk.padded else 0

    def read(index: int, axis: int, span: _Span) -> _Span:
        if axis not in padded:
            return span
        place = padded.index(axis)
        begin, end = int(pads[place]), int(pads[place + len(padded)])
        return span.reading(
            Fraction(1), Fraction(-begin - reach * max(end, 0)), Fraction(-begin + reach * max(begin, 0))
        )

    return field.along(read)


def _rearranged(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    """DepthToSpace and SpaceToDepth: blocks of pixels to channels, or back."""
    block = int(node.attributes.get_int("blocksize", 1) or 1)
    if node.op_type == "SpaceToDepth":
        return field.along(lambda index, axis, span: span.reading(Fraction(block), Fraction(0), Fraction(block - 1)))
    within = Fraction(1 - block, block)
    return field.along(lambda index, axis, span: span.reading(Fraction(1, block), within, Fraction(0)))


def _transpose(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    order = _ints(node, "perm", range(field.rank)[::-1])
    rows, columns = (order.index(axis) for axis in field.axes)
    return replace(field, axes=(rows, columns))


def _reshape(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    """Axes other than rows and columns may be split and merged, as long as those stand last, before and after."""
    before, after = walk.shape(node.inputs[0]), walk.shape(node.outputs[0])
    last = field.axes == (field.rank - 2, field.rank - 1)
    if not last or before is None or after is None or len(after) < 2 or after[-2:] != before[-2:]:
        raise _WholeImageError(f"Reshape {node.name} mixes rows and columns with other axes")
    return replace(field, rank=len(after), axes=(len(after) - 2, len(after) - 1))


def _reduction(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    given = node.attributes.get_ints("axes") if "axes" in node.attributes else walk.value(node, 1)
    axes = [int(axis) % field.rank for axis in given] if given is not None else []
    kept = bool(node.attributes.get_int("keepdims", 1))
    none_is_none = bool(node.attributes.get_int("noop_with_empty_axes", 0))
    over = set(axes) if axes or none_is_none else set(field.axes)
    _only_if(not over & set(field.axes), field, node)
    return _only_if(kept, field, node, "takes axes away")


def _product(walk: _Walk, node: ir.Node, field: _Field) -> _Field:
    """A matrix product over the last axis, which is the channels where they stand last."""
    constant = walk.shape(node.inputs[1])
    return _only_if(field.rank - 1 not in field.axes and constant is not None and len(constant) == 2, field, node)


_RULES: Mapping[str, Callable[[_Walk, ir.Node, _Field], _Field]] = {
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
