"""A walk through a graph that says of each tensor what it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.graph.shape_inference import Shape, tensor_facts
from fcn_deploy.receptive_field.field import Field, Span, WholeImageError, only_if
from fcn_deploy.receptive_field.rules import RULES

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
# Their further inputs are of the channels, or say how the first is treated.
_BY_CHANNEL = ("BatchNormalization", "LayerNormalization", "QuantizeLinear", "DequantizeLinear", "Split", "Dropout")


class Walk:
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
        self.fields: dict[str, Field] = {str(image.name): Field(4, (2, 3), (Span(), Span()))}
        self.numbers: dict[str, bytes] = {}

    @property
    def output(self) -> Field:
        """What the logits depend on."""
        return self.fields[self.name]

    def same_as(self, other: Walk) -> bool:
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

    def _to_edges(self, value: ir.Value, field: Field) -> Field:
        """Returns a field that holds what keeps elements from being missing at the edges of a smaller image."""
        shape = self.shape(value)
        if shape is None:
            raise WholeImageError(f"{value.name} is of unknown size")

        def reach(index: int, axis: int, span: Span) -> Span:
            # Element -1 is missing in an image that begins at 0, and element `count` in one that ends at `size`.
            first = max(span.step - 1, Fraction(0))
            missing = self._size[index] - span.step * shape[axis]
            return Span(span.step, min(span.low, first), max(span.high, missing))

        return field.along(reach)

    def _field(self, node: ir.Node, known: Sequence[Field | None]) -> Field:
        if node.op_type in _ELEMENTWISE:
            return self._union(node, known)
        if node.op_type in _ALONG_AXIS:
            field = self._union(node, known)
            axis = node.attributes.get_int("axis", _ALONG_AXIS[node.op_type]) % field.rank
            along = range(axis, field.rank) if node.op_type == "LayerNormalization" else (axis,)
            return only_if(not set(along) & set(field.axes), field, node)
        first = known[0]
        if first is None or any(known[1:]):
            raise WholeImageError(f"{node.op_type} {node.name} mixes pixels in a way that is not followed")
        if node.op_type not in RULES:
            raise WholeImageError(f"{node.op_type} {node.name} may see the whole image")
        return RULES[node.op_type](self, node, first)

    def _union(self, node: ir.Node, known: Sequence[Field | None]) -> Field:
        """What a node depends on that treats every pixel of all its inputs alike."""
        fields = [field for field in known if field is not None]
        first = max(fields, key=lambda field: field.rank)
        same = all((field.rank, field.axes) == (first.rank, first.axes) for field in fields)
        steps = {tuple(span.step for span in field.spans) for field in fields}
        only_if(same and len(steps) == 1, first, node, "puts together maps of different scales")
        for value, field in zip(node.inputs, known, strict=True):
            if value is not None and field is None:
                self._check_uniform(node, value, first)
        return reduce(Field.union, fields, first)

    def _check_uniform(self, node: ir.Node, value: ir.Value, field: Field) -> None:
        """Refuses what is other for one place of the image than for another, such as an embedding of positions."""
        if node.op_type in _BY_CHANNEL:
            return
        shape = self.shape(value)
        if shape is None:
            raise WholeImageError(f"{node.op_type} {node.name} reads a tensor of unknown size")
        from_behind = [field.rank - axis for axis in field.axes]
        if any(len(shape) >= axis and shape[-axis] > 1 for axis in from_behind):
            raise WholeImageError(f"{node.op_type} {node.name} goes by the place in the image")
        if value.const_value is not None:
            return
        if (number := self._facts.values.get(str(value.name))) is None:
            raise WholeImageError(f"{node.op_type} {node.name} goes by a value that is not known before the net runs")
        self.numbers[f"{node.name}/{value.name}"] = number.tobytes()

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Returns the shape of a tensor; None where it is not known, or there is no tensor."""
        known = self._facts.types.get(str(value.name)) if value is not None else None
        return known.shape if known else None

    def value(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        """What an input of a node is, where it is given; unknown values raise."""
        if index >= len(node.inputs) or node.inputs[index] is None:
            return None
        value = self._facts.values.get(str(node.inputs[index].name))  # type: ignore[union-attr]
        if value is None:
            raise WholeImageError(f"{node.op_type} {node.name} goes by a value that is not known before the net runs")
        return value
