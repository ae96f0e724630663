"""Gives the data of a graph a float type of 16 bits: a typed graph, in which every tensor says what it is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import add_constant, constant_of, insert_cast
from fcn_deploy.graph.ops import DEQUANTIZE, MEASURING, QUANTIZE
from fcn_deploy.passes.rewrite import Declined, RewriteResult

_FP32 = ir.DataType.FLOAT
_LARGEST = {ir.DataType.FLOAT16: 65504.0, ir.DataType.BFLOAT16: 2.0**128 - 2.0**120}
# What tensors that get the type are named after, and what holds their numbers.
_NAMES = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
_NUMBERS = {ir.DataType.FLOAT16: np.float16, ir.DataType.BFLOAT16: ml_dtypes.bfloat16}
# Inputs that an operator takes in float32 only, whatever the type of its data: by operator, from this position on.
_ALWAYS_FP32 = {"Resize": 1}
_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
# The first opset in which Q/DQ takes FP16 and BF16, and makes E4M3: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
QDQ_OPSET = 19


def retype(
    model: ir.Model, dtype: ir.DataType, keep: Collection[str] = (), keep_operators: Collection[str] = ()
) -> RewriteResult:
    """Gives the data of a graph another float type in place; see `fp16.ToFp16` for what is data.

    Args:
        model: Its float inputs are float32.
        dtype: `FLOAT16` or `BFLOAT16`.
        keep: Names of the tensors that stay float32.
        keep_operators: Operators that stay float32, with casts around them.

    Raises:
        InputError: The type of a tensor is not known, a constant is outside the type's range, Q/DQ is of an opset that
            does not take the type, or the graph has branches or operators that ONNX does not define, whose types are
            not known.
    """
    if any(value.dtype is None for node in model.graph for value in node.outputs if value.name):
        ShapeInferencePass()(model)
    graph = model.graph
    data = _data_nodes(graph)
    if not data:
        return RewriteResult(model, False, (Declined("no node computes on a float32 input"),))
    for node in data:
        _check_node(node, dtype, model.opset_imports.get("", 0))
    converted = {node for node in data if node.op_type not in keep_operators and not _touches(node, keep)}
    for node in _constant_nodes(graph, data):  # weights stored as integers get the type of their readers
        readers = {use.node for use in node.outputs[0].uses()}
        data.append(node)
        if readers <= converted and not _touches(node, keep):
            converted.add(node)
    retyped = _Retyped(graph, dtype, converted)
    for node in data:
        retyped.convert_inputs(node)
    for node in converted:
        retyped.convert_outputs(node)
    retyped.restore_outputs()
    return RewriteResult(model, bool(converted))


def _data_nodes(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that compute on data: float tensors that come from the graph's inputs, also by way of Q/DQ."""
    reached = {value for value in graph.inputs if value.dtype == _FP32}
    nodes = []
    for node in graph:
        if not any(value in reached for value in node.inputs):
            continue
        nodes.append(node)
        for value in node.outputs:
            if value.dtype is None and value.name:
                raise InputError(
                    f"the type of tensor {value.name} is not known",
                    got=f"output of {node.domain or 'ONNX'} {node.op_type} {node.name}",
                    fix="export the net again, without operators that ONNX does not define",
                )
            if value.dtype == _FP32 or node.op_type == QUANTIZE:
                reached.add(value)
    return nodes


def _constant_nodes(graph: ir.Graph, data: list[ir.Node]) -> list[ir.Node]:
    known = set(data)
    return [
        node
        for node in graph
        if node.op_type == DEQUANTIZE and node not in known and constant_of(node.inputs[0]) is not None
    ]


def _check_node(node: ir.Node, dtype: ir.DataType, opset: int) -> None:
    if node.domain not in ("", "ai.onnx") or any(a.type in _SUBGRAPHS for a in node.attributes.values()):
        raise InputError(
            f"{node.op_type} {node.name} cannot be made {_NAMES[dtype].upper()}",
            got=f"an operator of {node.domain}" if node.domain else "a branch or a loop",
            expected="operators of ONNX without graphs inside",
            fix='build with `precision="fp32"`',
        )
    if node.op_type == QUANTIZE and opset < QDQ_OPSET:
        raise InputError(
            f"Q/DQ of opset {opset} has no {_NAMES[dtype].upper()}", expected=f"opset {QDQ_OPSET} or later"
        )


def _touches(node: ir.Node, keep: Collection[str]) -> bool:
    return any(value is not None and value.name in keep for value in (*node.inputs, *node.outputs))


class _Retyped:
    """Changes the types of one graph; each tensor is cast once, however many nodes read it."""

    def __init__(self, graph: ir.Graph, dtype: ir.DataType, nodes: set[ir.Node]) -> None:
        self._graph, self._dtype, self._nodes = graph, dtype, nodes
        self._retyped = {value for node in nodes for value in node.outputs if value.dtype == _FP32}
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def convert_inputs(self, node: ir.Node) -> None:
        if node.op_type in MEASURING:
            return
        wanted = self._dtype if node in self._nodes else _FP32
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != _FP32:
                continue
            dtype = _FP32 if index >= _ALWAYS_FP32.get(node.op_type, len(node.inputs)) else wanted
            if dtype != (self._dtype if value in self._retyped else _FP32):
                node.replace_input_with(index, self._as(value, dtype))

    def convert_outputs(self, node: ir.Node) -> None:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == _FP32:
            node.attributes["to"] = ir.AttrInt64("to", self._dtype)
        for value in node.outputs:
            if value.dtype == _FP32:
                value.type = ir.TensorType(self._dtype)

    def restore_outputs(self) -> None:
        """Puts casts before the outputs, which keep their names and types."""
        for index, value in enumerate(self._graph.outputs):
            if value not in self._retyped:
                continue
            name, shape = value.name, value.shape
            value.name = f"{name}/{_NAMES[self._dtype]}"
            output = insert_cast(self._graph, value, _FP32, f"{name}/Cast")
            output.name, output.shape = name, shape
            self._graph.outputs[index] = output

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = (value, dtype)
        if key not in self._converted:
            array = constant_of(value)
            name = f"{value.name}/{_NAMES.get(dtype, 'fp32')}"
            if array is None:
                self._converted[key] = insert_cast(self._graph, value, dtype, name)
            else:
                self._converted[key] = add_constant(self._graph, name, _rounded(value, array, dtype))
        return self._converted[key]


def _rounded(value: ir.Value, array: NDArray[Any], dtype: ir.DataType) -> NDArray[Any]:
    number: Any = _NUMBERS[dtype]
    with np.errstate(over="ignore"):
        rounded = array.astype(number)
    if not np.array_equal(np.isfinite(rounded), np.isfinite(array)):
        raise InputError(
            f"constant {value.name} is outside {_NAMES[dtype].upper()}'s range",
            got=f"up to {np.abs(array).max():g}",
            expected=f"at most {_LARGEST[dtype]:g}",
            fix="keep it in float32",
        )
    return rounded
