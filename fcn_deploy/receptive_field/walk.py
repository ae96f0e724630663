"""A walk through a graph that finds what each tensor depends on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.graph.edit import optional_input
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
# They work along an axis, which must not be rows or columns: the default of that axis.
_ALONG_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Concat": 1, "Split": 0, "LayerNormalization": -1}
# Their further inputs are one value per channel, or options.
_BY_CHANNEL = ("BatchNormalization", "LayerNormalization", "QuantizeLinear", "DequantizeLinear", "Split", "Dropout")


class Walk:
    """A walk through a graph, for images of one shape.

    Args:
        model: The net.
        images: The shape of the images.
        padded: Whether pixels that a Pad repeats or mirrors count.
        edges: Whether it counts how far the image must reach for an element to exist.

    Attributes:
        name: The name of the output.
        fields: What the tensors met so far depend on, by name; without those that depend on no pixel.
        numbers: Values that are computed from the size of the image and used with pixels, by node.
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
        """Returns whether another walk, at another size, found the same fields and numbers."""
        return (self.fields, self.numbers) == (other.fields, other.numbers)

    def add(self, node: ir.Node) -> None:
        """Adds the outputs of a node whose inputs have been added."""
        known = [self.fields.get(str(value.name)) if value is not None else None for value in node.inputs]
        # A size is no pixel; values computed from sizes alone are known already.
        if node.op_type not in ("Shape", "Size") and any(known):
            field = self._field(node, known)
            # Further outputs, such as the indices of maxima, are not followed.
            for output in node.outputs if node.op_type == "Split" else node.outputs[:1]:
                self.fields[str(output.name)] = self._to_edges(output, field) if self._edges else field

    def _to_edges(self, value: ir.Value, field: Field) -> Field:
        """Returns a field widened so that a smaller image lacks no element at its edges."""
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
        """Returns the field of a node that does the same at every pixel of all its inputs."""
        fields = [field for field in known if field is not None]
        first = max(fields, key=lambda field: field.rank)
        same = all((field.rank, field.axes) == (first.rank, first.axes) for field in fields)
        steps = {tuple(span.step for span in field.spans) for field in fields}
        only_if(same and len(steps) == 1, first, node, "combines maps of different scales")
        for value, field in zip(node.inputs, known, strict=True):
            if value is not None and field is None:
                self._check_uniform(node, value, first)
        return reduce(Field.union, fields, first)

    def _check_uniform(self, node: ir.Node, value: ir.Value, field: Field) -> None:
        """Refuses a value that differs from place to place in the image, such as an embedding of positions."""
        if node.op_type in _BY_CHANNEL:
            return
        shape = self.shape(value)
        if shape is None:
            raise WholeImageError(f"{node.op_type} {node.name} reads a tensor of unknown size")
        from_last = [field.rank - axis for axis in field.axes]
        if any(len(shape) >= axis and shape[-axis] > 1 for axis in from_last):
            raise WholeImageError(f"{node.op_type} {node.name} depends on the place in the image")
        if value.const_value is not None:
            return
        if (number := self._facts.values.get(str(value.name))) is None:
            raise WholeImageError(f"{node.op_type} {node.name} depends on a value that is unknown until the net runs")
        self.numbers[f"{node.name}/{value.name}"] = number.tobytes()

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Returns the shape of a tensor; None if it is unknown, or if `value` is None."""
        known = self._facts.types.get(str(value.name)) if value is not None else None
        return known.shape if known else None

    def value(self, node: ir.Node, index: int) -> NDArray[Any] | None:
        """Returns the value of an input of a node; None if the node leaves the input out.

        Raises:
            WholeImageError: The value is unknown until the net runs.
        """
        source = optional_input(node, index)
        if source is None:
            return None
        value = self._facts.values.get(str(source.name))
        if value is None:
            raise WholeImageError(f"{node.op_type} {node.name} depends on a value that is unknown until the net runs")
        return value
