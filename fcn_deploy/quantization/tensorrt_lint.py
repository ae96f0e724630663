"""The Q/DQ lint: what TensorRT would refuse in a graph, found before a builder runs and said in words that help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import constant_of, optional_input
from fcn_deploy.graph.ops import DEQUANTIZE, QDQ, QUANTIZE, SELECTING, WEIGHTED

# They move integers without computing on them, so they may stand between Q and DQ.
_MOVING = SELECTING | {"Concat"}
# TensorRT has no tensors of these types.
_NO_TYPES = (ir.DataType.UINT16, ir.DataType.INT16, ir.DataType.UINT32, ir.DataType.UINT64, ir.DataType.STRING)
_NAMES = {
    ir.DataType.INT8: "int8, with a zero point of int8 that is 0",
    ir.DataType.FLOAT8E4M3FN: "float8e4m3fn, with a zero point of float8e4m3fn that is 0",
}
# The operators of ONNX that a quantiser may write, and those for pooling with indices, that TensorRT's parser does not
# import: https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
_NO_QUANTIZERS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_NO_INDICES = "enlarge maps by interpolation or transposed convolution in place of unpooling, or build for onnxruntime"


_Check = Callable[[ir.Node, set[ir.Value]], Iterator["Finding"]]


@dataclass(frozen=True)
class Finding:
    """One thing TensorRT would refuse.

    Attributes:
        node: The node's operator and name, or its operator if it has no name.
        tensor: The tensor's name.
        what: What is wrong with it.
        fix: What to do.
    """

    node: str
    tensor: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.node}, tensor {self.tensor}: {self.what}; fix: {self.fix}"


def lint(model: ir.Model, quantized: ir.DataType = ir.DataType.INT8) -> tuple[Finding, ...]:
    """Looks through a typed graph for what TensorRT does not take.

    TensorRT's parser refuses most of it. It takes three things that it should refuse: Q/DQ of uint8, which it reads as
    int8; a scale for each channel of an activation; and integers that a node other than DequantizeLinear reads. For
    the last two it has no INT8 convolutions. A scale that is computed from the image makes TensorRT-RTX 1.7.1 end the
    process.

    Args:
        model: Any model. A tensor whose type the model does not state is not checked for its type.
        quantized: What its Q/DQ may make: `INT8`, or `FLOAT8E4M3FN` of an FP8 graph. TensorRT takes both; the GPUs
            that the engine is for may have no FP8.

    Returns:
        One finding for each problem, in graph order.
    """
    computed = _computed(model.graph)
    checks: list[_Check] = [*_CHECKS, partial(_check_numbers, quantized=quantized)]
    return tuple(
        finding
        for node in model.graph
        for check in checks
        for finding in check(node, computed)
    )  # fmt: skip


def _computed(graph: ir.Graph) -> set[ir.Value]:
    """Returns the tensors that depend on the graph's inputs: those that are not constant when an engine is built."""
    computed = set(graph.inputs) - set(graph.initializers.values())
    for node in graph:
        if any(value in computed for value in node.inputs):
            computed.update(node.outputs)
    return computed


def _check_operator(node: ir.Node, computed: set[ir.Value]) -> Iterator[Finding]:
    unknown = f"TensorRT has no operator {node.op_type}"
    if node.op_type in _NO_QUANTIZERS or (node.op_type.startswith("QLinear") and node.domain == "com.microsoft"):
        fix = "quantise with QuantizeLinear and DequantizeLinear around float operators"
        yield _finding(node, node.outputs[0], unknown, fix)
    elif node.op_type == "MaxUnpool":
        yield _finding(node, node.outputs[0], unknown, _NO_INDICES)
    elif node.op_type == "MaxPool":
        for indices in node.outputs[1:]:
            if indices.uses() or indices.is_graph_output():
                yield _finding(node, indices, "TensorRT's MaxPool gives no indices", _NO_INDICES)


def _check_numbers(node: ir.Node, computed: set[ir.Value], quantized: ir.DataType) -> Iterator[Finding]:
    if node.op_type == DEQUANTIZE and node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.INT32:
        yield _finding(node, node.inputs[0], "int32 is dequantised", "leave biases float: QuantizeBias off in the tool")
    elif node.op_type in QDQ and (dtype := _number_type(node)) not in (None, quantized):
        integers = node.outputs[0] if node.op_type == QUANTIZE else node.inputs[0]
        assert integers is not None
        yield _finding(node, integers, f"Q/DQ of {dtype}", f"quantise to {_NAMES[quantized]}")


def _number_type(node: ir.Node) -> ir.DataType | None:
    """Returns what a Q makes, or a DQ reads; None if the graph does not state it."""
    zero_point = optional_input(node, 2)
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == DEQUANTIZE:
        return node.inputs[0].dtype if node.inputs[0] is not None else None
    written = node.attributes.get_int("output_dtype", 0)
    return ir.DataType(written) if written else ir.DataType.UINT8  # ONNX's default


def _check_zero_point(node: ir.Node, computed: set[ir.Value]) -> Iterator[Finding]:
    zero_point = optional_input(node, 2)
    if node.op_type not in QDQ or zero_point is None:
        return
    array = constant_of(zero_point)
    if zero_point in computed:
        yield _finding(node, zero_point, "the zero point is computed", "make it a constant 0")
    elif array is not None and np.any(array):
        yield _finding(node, zero_point, f"a zero point of {array.flat[np.flatnonzero(array)[0]]}", _SYMMETRIC)


_SYMMETRIC = "quantise symmetrically: int8, zero points 0"


def _check_scale(node: ir.Node, computed: set[ir.Value]) -> Iterator[Finding]:
    scale = optional_input(node, 1)
    if node.op_type not in QDQ or scale is None:
        return
    array = constant_of(scale)
    if scale in computed:
        yield _finding(node, scale, "the scale is computed from the input", "make it a constant: quantise statically")
    elif array is not None and not (np.all(np.isfinite(array)) and np.all(array > 0)):
        yield _finding(
            node, scale, "a scale that is not positive", "calibrate again; for a tensor that is always 0, use 1"
        )
    elif array is not None and array.size > 1 and node.inputs[0] in computed:
        yield _finding(node, scale, "a scale for each channel of an activation", "quantise activations per tensor")


def _check_pair(node: ir.Node, computed: set[ir.Value]) -> Iterator[Finding]:
    if node.op_type != QUANTIZE:
        return
    waiting = [node.outputs[0]]
    while waiting:
        value = waiting.pop()
        readers = [use.node for use in value.uses()]
        if value.is_graph_output() or not readers:
            yield _finding(node, value, "integers that no DequantizeLinear reads", _PAIR)
        for reader in readers:
            if reader.op_type in _MOVING:
                waiting.extend(reader.outputs)
            elif reader.op_type != DEQUANTIZE:
                yield _finding(node, value, f"integers that {_name(reader)} reads", _PAIR)


_PAIR = "put a DequantizeLinear after every QuantizeLinear"


def _check_types(node: ir.Node, computed: set[ir.Value]) -> Iterator[Finding]:
    for value in node.outputs:
        if value.dtype in _NO_TYPES:
            yield _finding(node, value, f"TensorRT has no tensors of {value.dtype}", "use int32")
    if node.op_type == "Cast" or node.op_type in QDQ:
        return
    for tensor in (*node.inputs, *node.outputs):
        if tensor is not None and tensor.dtype == ir.DataType.UINT8 and tensor in computed:
            fix = "cast it first, then transpose" if node.op_type == "Transpose" else "cast it first"
            yield _finding(node, tensor, f"{node.op_type} on uint8, which TensorRT can only cast", fix)


def _check_mixture(node: ir.Node, computed: set[ir.Value]) -> Iterator[Finding]:
    if node.op_type not in WEIGHTED:
        return
    types = {value.dtype for value in node.inputs if value is not None and value.dtype is not None}
    if len(types) > 1:
        found = ", ".join(f"{value.name} {value.dtype}" for value in node.inputs if value is not None)
        yield _finding(node, node.outputs[0], f"inputs of several types: {found}", "cast them to one")


_CHECKS: tuple[_Check, ...] = (
    _check_operator,
    _check_zero_point,
    _check_scale,
    _check_pair,
    _check_types,
    _check_mixture,
)


def _name(node: ir.Node) -> str:
    return f"{node.op_type} {node.name}" if node.name else node.op_type


def _finding(node: ir.Node, value: ir.Value, what: str, fix: str) -> Finding:
    return Finding(_name(node), str(value.name), what, fix)
