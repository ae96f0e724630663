"""Graphs that bring their own Q/DQ: from quantisation-aware training, ONNX Runtime's quantiser or another tool."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.edit import constant_of

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Of ONNX's own operators and ONNX Runtime's, those that compute on integers.
_INTEGER = frozenset(
    {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QGemm"}
    | {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)

# Two products of a uint8 and an int8 of this size just fit into 16 bits: 2 * 255 * 64.
_FITTING = 64


def holds_qdq(model: ir.Model) -> bool:
    """Returns whether a model says by Q/DQ what is to run on integers, and with which scales.

    Raises:
        InputError: It computes on integers by operators that say so themselves, such as QLinearConv: nobody can build
            such a graph for another target, or say what of it runs in INT8.
    """
    nodes = list(_nodes(model))
    integer = sorted({node.op_type for node in nodes if node.op_type in _INTEGER or node.op_type.startswith("QLinear")})
    if integer:
        raise InputError(
            "the graph is quantised by integer operators",
            got=", ".join(integer),
            expected="QuantizeLinear and DequantizeLinear around float operators",
            fix="let the tool write Q/DQ: QuantFormat.QDQ in ONNX Runtime's quantize_static",
        )
    return any(node.op_type in (_QUANTIZE, _DEQUANTIZE) for node in nodes)


def require_float(model: ir.Model, what: str = "the model") -> None:
    """Checks that there is something to calibrate in a model.

    Raises:
        InputError: It is quantised already.
    """
    if holds_qdq(model):
        raise InputError(
            f"{what} is quantised already, with scales of its own",
            got="Q/DQ in the graph",
            expected="a float model to calibrate",
            fix="build-engine --int8 takes it as it is; or calibrate the float model it was made from",
        )


def require_half_scales(graph: ir.Graph) -> None:
    """Checks that every scale of a graph's Q/DQ is a number that FP16 has: in a graph of base FP16 they are FP16.

    Raises:
        UsageError: One is not, and would be rounded.
    """
    scales = {node.inputs[1] for node in graph if node.op_type in (_QUANTIZE, _DEQUANTIZE)}
    rounded = sorted(str(value.name) for value in scales if value is not None and not _fits_half(value))
    if rounded:
        raise UsageError(
            "scales of the graph's Q/DQ are no FP16 numbers, and on a base of FP16 would be rounded",
            got=", ".join(rounded[:3]) + (f" and {len(rounded) - 3} more" if len(rounded) > 3 else ""),
            fix="build with --base fp32, which keeps them; or quantise again with scales that FP16 has",
        )


def integer_weights(graph: ir.Graph) -> dict[str, ir.Value]:
    """Returns the integers that are weights of the layers with quantised weights and data, by name of the layer."""
    return {str(node.name or node.outputs[0].name): integers for node, integers in _quantized_layers(graph)}


def saturating_weights(graph: ir.Graph) -> dict[str, ir.Value]:
    """Returns those weights, by name of the layer, whose products saturate on a CPU without VNNI.

    ONNX Runtime's kernels for x86 without VNNI add two products of a uint8 and an int8 in 16 bits, which weights beyond
    -64..64 overflow. int8 activations are made uint8 before and meet the same kernels; uint8 weights have others, which
    do not overflow. A transposed convolution always runs in float.
    """
    return {
        str(node.name or node.outputs[0].name): integers
        for node, integers in _quantized_layers(graph)
        if node.op_type != "ConvTranspose" and integers.dtype == ir.DataType.INT8 and not _fits_products(integers)
    }


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def _fits_half(scale: ir.Value) -> bool:
    array = constant_of(scale)
    if array is None or array.dtype != np.float32:
        return True  # computed, which the lint refuses; or FP16 already
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array.astype(np.float16).astype(np.float32), array))


def _quantized_layers(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Value]]:
    for node in graph:
        if node.op_type not in _LAYERS or not all(map(_is_dequantized, node.inputs[:2])):
            continue
        for value in node.inputs[:2]:
            producer = value.producer() if value is not None else None
            integers = producer.inputs[0] if producer is not None else None
            if integers is not None and constant_of(integers) is not None:
                yield node, integers
                break


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == _DEQUANTIZE


def _fits_products(integers: ir.Value) -> bool:
    array = constant_of(integers)
    assert array is not None
    return bool(np.abs(array.astype(np.int16)).max(initial=0) <= _FITTING)
