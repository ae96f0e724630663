"""Prequantized models: graphs with Q/DQ from quantisation-aware training, ONNX Runtime's quantiser or another tool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.ops import DEQUANTIZE, QDQ, QUANTIZE, WEIGHTED

# The operators of ONNX and ONNX Runtime that compute on integers, beside those whose names begin with QLinear.
_INTEGER = frozenset(
    {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QGemm"}
    | {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)


def is_prequantized(model: ir.Model) -> bool:
    """Returns whether a model says by Q/DQ what runs on integers, and with which scales.

    Raises:
        InputError: It has integer operators, such as QLinearConv. Such a graph cannot be built for another target, and
            does not say which of its layers run in INT8.
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
    return any(node.op_type in QDQ for node in nodes)


def only_float8(model: ir.Model) -> list[str]:
    """Returns what the Q/DQ of a graph make, such as `FLOAT8E4M3FN`, if all of it is FP8; else nothing."""
    ends = [
        node.outputs[0] if node.op_type == QUANTIZE else node.inputs[0] for node in _nodes(model) if node.op_type in QDQ
    ]
    numbers = {"unknown" if value is None or value.dtype is None else value.dtype.name for value in ends}
    return sorted(numbers) if all(each.startswith("FLOAT8") for each in numbers) else []


def check_not_prequantized(model: ir.Model, what: str = "the model") -> None:
    """Checks that a model is float, so that it can be calibrated.

    Raises:
        InputError: It is prequantized.
    """
    if is_prequantized(model):
        raise InputError(
            f"{what} is quantised already, with scales of its own",
            got="Q/DQ in the graph",
            expected="a float model to calibrate",
            fix=("" if only_float8(model) else 'build its engine with `precision="int8"` and without ranges; or ')
            + "calibrate the float model it was made from",
        )


def check_scales_of_base(graph: ir.Graph, base: Literal["fp16", "bf16"]) -> None:
    """Checks that FP16 or BF16 holds every scale of a graph's Q/DQ exactly: scales have the type of the rest.

    Raises:
        UsageError: It would round a scale.
    """
    scales = {node.inputs[1] for node in graph if node.op_type in QDQ}
    rounded = sorted(str(value.name) for value in scales if value is not None and not _holds(base, value))
    if rounded:
        raise UsageError(
            f"{base.upper()} would round scales of the graph's Q/DQ",
            got=", ".join(rounded[:3]) + (f" and {len(rounded) - 3} more" if len(rounded) > 3 else ""),
            expected=f"scales that {base.upper()} holds exactly",
            fix='build with `base="fp32"`, which keeps them; or quantise again with such scales',
        )


def integer_weights(graph: ir.Graph) -> dict[str, ir.Value]:
    """Returns the integer weights of the layers whose weights and input are both quantised, by name of the layer."""
    return {str(node.name or node.outputs[0].name): integers for node, integers in _quantized_layers(graph)}


def saturating_weights(graph: ir.Graph, limit: int) -> dict[str, ir.Value]:
    """Returns the integer weights, by name of the layer, whose products saturate on some CPU of a target.

    ONNX Runtime's kernels for x86 without VNNI add two products of a uint8 and an int8 in 16 bits, where 2 * 255 * 64
    just fits. Those for Arm subtract 128 from the activations first: 2 * 128 * 127 fits, a weight of -128 does not,
    without the dot-product instructions in any layer, and with them in depthwise convolutions. int8 activations use the
    same kernels; uint8 weights use others, which do not overflow. A transposed convolution always runs in float.

    Args:
        graph: A graph with Q/DQ.
        limit: The largest absolute value that does not saturate: 64 on every CPU, 127 with VNNI and on 64-bit Arm.
    """
    return {
        str(node.name or node.outputs[0].name): integers
        for node, integers in _quantized_layers(graph)
        if node.op_type != "ConvTranspose" and integers.dtype == ir.DataType.INT8 and _largest(integers) > limit
    }


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def _holds(base: Literal["fp16", "bf16"], scale: ir.Value) -> bool:
    array = constant_of(scale)
    if array is None or array.dtype != np.float32:
        return True  # computed by the graph, which the lint refuses; or of 16 bits already
    number: Any = np.float16 if base == "fp16" else ml_dtypes.bfloat16
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array.astype(number).astype(np.float32), array))


def _quantized_layers(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Value]]:
    for node in graph:
        if node.op_type not in WEIGHTED or not all(map(_is_dequantized, node.inputs[:2])):
            continue
        for value in node.inputs[:2]:
            producer = value.producer() if value is not None else None
            integers = producer.inputs[0] if producer is not None else None
            if integers is not None and constant_of(integers) is not None:
                yield node, integers
                break


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == DEQUANTIZE


def _largest(integers: ir.Value) -> int:
    array = constant_of(integers)
    assert array is not None
    return int(np.abs(array.astype(np.int16)).max(initial=0))
