"""The layers of a graph: their weights, their cost, and their precision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir
from onnx.inliner import inline_local_functions

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.graph.edit import optional_input
from fcn_deploy.graph.ops import DEQUANTIZE, QDQ, REARRANGING, WEIGHTED
from fcn_deploy.graph.shape_inference import Shape, TensorType, tensor_types

_FLOATS = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.DOUBLE: "fp64",
}

# These may stand between a constant and the layer that reads it as weights: they change how weights are stored only.
_STORAGE = frozenset({*QDQ, "Cast"}) | REARRANGING


@dataclass(frozen=True)
class Layer:
    """A node with weights.

    Attributes:
        name: Name of the node.
        op: `Conv`, `ConvTranspose`, `Gemm` or `MatMul`.
        weights: Their shape as the node reads them: [out, in / groups, kernel...] of a Conv, [in, out / groups,
            kernel...] of a ConvTranspose.
        output: Shape of its output, batch first; None if it is not known.
        parameters: Number of its weights and biases, without scales and zero points. A tensor that two layers read
            counts for each, because exporters also merge tensors that happen to be equal.
        macs: Number of multiply-adds for a batch; None if it is not known.
        precision: `fp32`, `fp16`, `bf16`, `fp64`; or, if it reads both its input and its weights by way of Q/DQ, the
            wider of the two types, which is `int8` for integers of 8 bits.
    """

    name: str
    op: str
    weights: Shape
    output: Shape | None
    parameters: int
    macs: int | None
    precision: str


def list_layers(model: ir.Model, images: ImageShape | None) -> tuple[Layer, ...]:
    """Returns the layers of a model: each Conv, ConvTranspose, Gemm and MatMul whose weights are constant.

    The cost counts the products with weights, also with the zeros of the padding, and not the additions of the bias:
    half of what `torch.utils.flop_counter` counts.

    - Conv: elements of the output x in channels / groups x kernel. Each element is a sum over that many products.
    - ConvTranspose: elements of the input x out channels / groups x kernel. Each element is spread over that many.
    - Gemm, MatMul: elements of the output x columns of the left matrix.

    Args:
        model: Any model; an exported net, an engine, or another.
        images: Shape of its input, from `shape_inference.image_shape`; with None, `output` and `macs` are unknown.

    Returns:
        In the order of the graph, those inside the branches of If and the bodies of loops included.

    Raises:
        InputError: The model does not run on such images.
    """
    if model.functions:
        model = ir.from_proto(inline_local_functions(ir.to_proto(model)))
    types = tensor_types(model, images)
    layers = (_layer(node, types) for node in ir.traversal.RecursiveGraphIterator(model.graph))
    return tuple(layer for layer in layers if layer is not None)


def total_macs(layers: Iterable[Layer]) -> int | None:
    """Returns the multiply-adds of all layers; None if those of one of them are not known."""
    macs = [layer.macs for layer in layers]
    known = [count for count in macs if count is not None]
    return sum(known) if len(known) == len(macs) else None


def _layer(node: ir.Node, types: Mapping[str, TensorType]) -> Layer | None:
    if node.op_type not in WEIGHTED or node.domain:
        return None
    # Only a matrix product may have its weights on the left.
    sides = (1, 0) if node.op_type in ("Gemm", "MatMul") else (1,)
    side = next((side for side in sides if _constant(node.inputs[side]) is not None), None)
    # A product of two constants is itself constant: it is computed once, not for each image.
    if side is None or _constant(node.inputs[1 - side]) is not None:
        return None
    data, read = node.inputs[1 - side], node.inputs[side]
    stored = _constant(read)
    assert data is not None
    assert read is not None
    assert stored is not None
    weights = _shape(read, types) or _stored_shape(stored)
    output = _shape(node.outputs[0], types)
    bias = _bias(node, side, weights)
    return Layer(
        name=str(node.name or node.outputs[0].name),
        op=node.op_type,
        weights=weights,
        output=output,
        parameters=sum(prod(_stored_shape(value)) for value in (stored, bias) if value is not None),
        macs=_macs(node, side, weights, _shape(data, types), output),
        precision=_precision(data, read, stored, types),
    )


def _macs(node: ir.Node, side: int, weights: Shape, data: Shape | None, output: Shape | None) -> int | None:
    if node.op_type == "ConvTranspose":
        return None if data is None else prod(data) * prod(weights[1:])
    if output is None:
        return None
    if node.op_type == "Conv":
        return prod(output) * prod(weights[1:])
    return prod(output) * weights[_summed_axis(node, side, weights)]


def _summed_axis(node: ir.Node, side: int, weights: Shape) -> int:
    """The axis of a matrix of weights over which a product sums: the columns on the left, the rows on the right."""
    if node.op_type == "MatMul":
        return -1 if side == 0 or len(weights) == 1 else -2
    transposed = bool(node.attributes.get_int("transB" if side else "transA", 0))
    return int(transposed if side else not transposed)


def _constant(value: ir.Value | None) -> ir.Value | None:
    """Returns the constant that a value is, or is stored as; None if it is computed from the input."""
    while value is not None and ir.convenience.get_const_tensor(value) is None:
        value = _stored_in(value)
    return value


def _stored_in(value: ir.Value) -> ir.Value | None:
    return _source(value, _STORAGE) or _transformed(value)


def _transformed(value: ir.Value) -> ir.Value | None:
    """Returns the weights that a matrix product transforms by a constant on its left: a product of constants is one."""
    producer = value.producer()
    if producer is None or producer.op_type != "MatMul":
        return None
    matrix, weights = producer.inputs
    constant = matrix is not None and ir.convenience.get_const_tensor(matrix) is not None
    return weights if constant else None


def _source(value: ir.Value, ops: Collection[str]) -> ir.Value | None:
    producer = value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type in ops else None


def _shape(value: ir.Value, types: Mapping[str, TensorType]) -> Shape | None:
    known = types.get(str(value.name))
    return known.shape if known is not None else None


def _stored_shape(constant: ir.Value) -> Shape:
    tensor = ir.convenience.get_const_tensor(constant)
    assert tensor is not None
    return tuple(tensor.shape.numpy())


def _bias(node: ir.Node, side: int, weights: Shape) -> ir.Value | None:
    """Returns the constant that a layer adds to its products, in the node or, after a MatMul, in the next node."""
    if node.op_type != "MatMul":
        return _constant(optional_input(node, 2))
    uses = list(node.outputs[0].uses())
    if side == 0 or len(uses) != 1 or uses[0].node.op_type != "Add":
        return None
    added = _constant(uses[0].node.inputs[1 - uses[0].idx])
    return added if added is not None and _stored_shape(added) == weights[-1:] else None


def _precision(data: ir.Value, read: ir.Value, stored: ir.Value, types: Mapping[str, TensorType]) -> str:
    weights: ir.Value | None = read
    while weights is not None and weights is not stored:
        integers, activations = (_source(value, (DEQUANTIZE,)) for value in (weights, data))
        # Integers on both sides make an integer layer. Integer weights that meet float data are computed in float.
        if integers is not None and activations is not None:
            return _quantized(_dtype(integers, stored, types), _dtype(activations, stored, types))
        weights = _stored_in(weights)
    dtype = _dtype(read, stored, types)
    return _FLOATS.get(dtype, dtype.name.lower())


def _quantized(weights: ir.DataType, activations: ir.DataType) -> str:
    if weights.is_integer() and activations.is_integer():
        return f"int{max(weights.bitwidth, activations.bitwidth)}"
    return (activations if weights.is_integer() else weights).name.lower()


def _dtype(value: ir.Value, stored: ir.Value, types: Mapping[str, TensorType]) -> ir.DataType:
    """The type of weights; inside branches and loops, where types are not inferred, the type of the stored constant."""
    known = types.get(str(value.name))
    if known is not None:
        return known.dtype
    tensor = ir.convenience.get_const_tensor(stored)
    assert tensor is not None
    return tensor.dtype
