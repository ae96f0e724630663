"""The type and shape of every tensor of a graph for images of one size, without running the net."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError, UsageError

_log = logging.getLogger(__name__)

Shape = tuple[int, ...]

DEFAULT_SHAPE = ImageShape(1, 512, 512)

# A graph computes a few integers from shapes; a longer tensor is data, whose values no shape depends on.
_LONGEST = 1024


def image_shape(model: ir.Model, asked: ImageShape | None = None) -> ImageShape | None:
    """Returns the shape of the images for which a model is to be described.

    Args:
        model: Any model.
        asked: The shape that the user wants, or None.

    Returns:
        The shape that was asked for; else the model's own, with 1x512x512 for what is dynamic in it. None if the model
        takes no images: its one input is neither float [N, 3, H, W] nor uint8 [N, H, W, 3].

    Raises:
        UsageError: The model does not take the shape that was asked for.
    """
    image = _image_input(model)
    if image is None:
        if asked is not None:
            raise UsageError(
                "the model takes no images, so it has no shape to choose",
                got=", ".join(f"{value.name} {value.dtype} {value.shape}" for value in _inputs(model)) or "no inputs",
                expected="one input, float [N, 3, H, W] or uint8 [N, H, W, 3]",
                fix="leave out `shape`",
            )
        return None
    assert image.shape is not None
    wanted = asked or DEFAULT_SHAPE
    sizes = (image.shape[axis] for axis in _axes(image))
    own = tuple(
        int(size) if isinstance(size, int) else default
        for size, default in zip(sizes, (wanted.batch, wanted.height, wanted.width), strict=True)
    )
    shape = ImageShape(*own)
    if asked is not None and asked != shape:
        raise UsageError(
            "the model's shape is fixed", got=f'`shape="{asked}"`', expected=str(shape), fix="leave out `shape`"
        )
    return shape


@dataclass(frozen=True)
class TensorType:
    """What is known of a tensor before the graph runs.

    Attributes:
        dtype: Type of its elements.
        shape: Its sizes; None if not all of them are known.
    """

    dtype: ir.DataType
    shape: Shape | None


@dataclass(frozen=True, eq=False)
class TensorFacts:
    """What is known of the tensors of a graph before it runs.

    Attributes:
        types: By name.
        values: Values of the short tensors that do not depend on the pixels of the image, by name.
    """

    types: Mapping[str, TensorType]
    values: Mapping[str, NDArray[Any]]


def tensor_types(model: ir.Model, images: ImageShape | None) -> dict[str, TensorType]:
    """Returns the types of the graph's tensors, by name; see `tensor_facts`."""
    return dict(tensor_facts(model, images).types)


def tensor_facts(model: ir.Model, images: ImageShape | None) -> TensorFacts:
    """Returns what is known of the graph's tensors.

    Walks the graph once. ONNX's inference gives each node's output its shape. What the graph computes from shapes (the
    ends of a crop, the size of a Resize) is computed by ONNX's reference implementation, so that the inference of the
    next node knows it. ONNX's inference of a whole graph leaves such tensors unknown.

    Args:
        model: Any model, without local functions.
        images: Shape of its input; None if it is not known.

    Returns:
        What is certain. Not known are shapes that depend on values, such as the output of NonZero, what comes after
        operators that ONNX does not define, and what is inside the branches of If and the bodies of loops.

    Raises:
        InputError: The model does not run on such images.
    """
    known = _Known(dict(model.opset_imports), images)
    image = _image_input(model) if images is not None else None
    for value in _inputs(model):
        if value.dtype is not None:
            known.types[str(value.name)] = onnx.helper.make_tensor_type_proto(
                int(value.dtype), _fed(value, images) if value is image and images is not None else None
            )
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            known.add_constant(name, value.const_value)
    for node in model.graph:
        known.add_node(ir.to_proto(node))
    types = {
        name: TensorType(ir.DataType(proto.tensor_type.elem_type), _static(proto))
        for name, proto in known.types.items()
        if proto.HasField("tensor_type")
    }
    return TensorFacts(types, known.values)


def _inputs(model: ir.Model) -> list[ir.Value]:
    """The graph's inputs without the initialisers, which old models list as well."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _image_input(model: ir.Model) -> ir.Value | None:
    inputs = _inputs(model)
    if len(inputs) != 1 or inputs[0].shape is None or inputs[0].shape.rank() != 4:
        return None
    return inputs[0] if inputs[0].shape[_channel_axis(inputs[0])] == 3 else None


def _channel_axis(image: ir.Value) -> int:
    return 3 if image.dtype == ir.DataType.UINT8 else 1


def _axes(image: ir.Value) -> list[int]:
    """The axes of batch, height and width."""
    return [axis for axis in range(4) if axis != _channel_axis(image)]


def _fed(image: ir.Value, images: ImageShape) -> list[int]:
    sizes = [images.batch, images.height, images.width]
    sizes.insert(_channel_axis(image), 3)
    return sizes


def _static(proto: onnx.TypeProto) -> Shape | None:
    tensor = proto.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


@dataclass
class _Known:
    """What is known so far of the tensors of a graph: their types, and the values of the short ones.

    Attributes:
        opsets: Versions by domain.
        images: Shape of the model's input, for errors; None if it is not known.
        types: Types by tensor name.
        values: Values by tensor name.
    """

    opsets: Mapping[str, int]
    images: ImageShape | None
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    values: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add_constant(self, name: str, tensor: ir.TensorProtocol) -> None:
        shape = tensor.shape.numpy()
        self.types[name] = onnx.helper.make_tensor_type_proto(int(tensor.dtype), shape)
        if prod(shape) <= _LONGEST and tensor.dtype != ir.DataType.STRING:
            self.values[name] = tensor.numpy()

    def add_node(self, node: onnx.NodeProto) -> None:
        """Adds the outputs of a node whose inputs have been added, as far as they can be known."""
        inputs = [name for name in node.input if name]
        version = self.opsets.get(node.domain)
        nested = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if version is None or nested or not onnx.defs.has(node.op_type, version, node.domain):
            return
        if not all(name in self.types for name in inputs):
            return
        self._infer(node, inputs, onnx.defs.get_schema(node.op_type, version, node.domain))
        self._evaluate(node, inputs)

    def _infer(self, node: onnx.NodeProto, inputs: list[str], schema: onnx.defs.OpSchema) -> None:
        types = {name: self.types[name] for name in inputs}
        values = {name: onnx.numpy_helper.from_array(self.values[name]) for name in inputs if name in self.values}
        try:
            outputs = onnx.shape_inference.infer_node_outputs(schema, node, types, values)
        except onnx.shape_inference.InferenceError as error:
            raise InputError(
                f"{node.op_type} {node.name} does not fit its inputs",
                got=", ".join(str(_static(self.types[name])) for name in inputs),
                expected=None if self.images is None else f"a model that takes images of {self.images}",
                fix=None if self.images is None else "give a `shape` that it takes",
            ) from error
        self.types.update({name: outputs[name] for name in node.output if name in outputs})

    def _evaluate(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        if node.op_type == "Shape":
            shape = _static(self.types[inputs[0]])
            if shape is not None:
                ends = {attribute.name: attribute.i for attribute in node.attribute}
                self._keep(node.output[0], np.array(shape[ends.get("start", 0) : ends.get("end")], np.int64))
            return
        # Of the operators without inputs only Constant always gives the same.
        if not all(name in self.values for name in inputs) or not (inputs or node.op_type == "Constant"):
            return
        sizes = (_static(self.types[name]) for name in node.output if name in self.types)
        if any(size is not None and prod(size) > _LONGEST for size in sizes):
            return
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [onnx.helper.make_empty_tensor_value_info(name) for name in inputs],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output],
        )
        try:
            # No warning of a division by zero: the net is not run, and the user has no use for it.
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(graph, dict(self.opsets)).run(
                    None, {name: self.values[name] for name in inputs}
                )
        except Exception as error:
            # Each operator can fail in its own way; what cannot be computed stays unknown, and so do shapes made of it.
            _log.debug("cannot compute %s %s: %s", node.op_type, node.name, error)
            return
        for name, result in zip(node.output, results, strict=True):
            if isinstance(result, np.ndarray | np.generic) and result.dtype.kind in "biuf":
                self._keep(name, np.asarray(result))

    def _keep(self, name: str, value: NDArray[Any]) -> None:
        elements = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        self.types[name] = onnx.helper.make_tensor_type_proto(elements, value.shape)
        if value.size <= _LONGEST:
            self.values[name] = value
