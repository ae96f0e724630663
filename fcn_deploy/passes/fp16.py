"""Makes the data of a graph FP16: a typed graph, in which every tensor says what it is."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import add_constant, constant_of

_log = logging.getLogger(__name__)

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
# Inputs that the operator wants in float32 whatever its data is: by operator, from this position on.
_ALWAYS_FLOAT = {"Resize": 1}
# They read a tensor's shape, not its values.
_SHAPES = ("Shape", "Size")
# The first opset in which Q/DQ takes FP16: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
QDQ_OPSET = 19


def to_half(model: ir.Model, keep: Collection[str] = ()) -> tuple[ir.Model, bool]:
    """Makes float32 tensors FP16, with casts behind the inputs and in front of the outputs, which stay float32.

    What is computed from the graph's inputs is data, and becomes FP16 with the constants it meets; what is computed of
    shapes alone stays as it is. A node that reads or makes a tensor in `keep` runs in float32, with the casts this
    needs. Tensors keep their names, except that an output's name is its cast's.

    Args:
        model: Its float inputs are float32.
        keep: Names of tensors that stay float32.

    Raises:
        InputError: The type of a tensor is not known, a constant is outside FP16's range, Q/DQ is of an opset without
            FP16, or the graph has branches or foreign operators, whose types are not known.
    """
    graph = model.graph
    if any(value.dtype is None for node in graph for value in node.outputs if value.name):
        model = ShapeInferencePass()(model).model
        graph = model.graph
    data = _data_nodes(graph)
    if not data:
        _log.debug("to_half declines: no node computes on a float32 input")
        return model, False
    for node in data:
        _check_node(node, model.opset_imports.get("", 0))
    half = {node for node in data if not _touches(node, keep)}
    for node in _constant_nodes(graph, data):  # weights that are stored as integers: as what reads them
        readers = {use.node for use in node.outputs[0].uses()}
        data.append(node)
        if readers <= half and not _touches(node, keep):
            half.add(node)
    rewrite = _Rewrite(graph, half)
    for node in data:
        rewrite.convert_inputs(node)
    for node in half:
        rewrite.convert_outputs(node)
    rewrite.restore_outputs()
    return model, bool(half)


def _data_nodes(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that compute on data: float tensors that come from the graph's inputs, also by way of Q/DQ."""
    reached = {value for value in graph.inputs if value.dtype == _FLOAT}
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
            if value.dtype == _FLOAT or node.op_type == "QuantizeLinear":
                reached.add(value)
    return nodes


def _constant_nodes(graph: ir.Graph, data: list[ir.Node]) -> list[ir.Node]:
    known = set(data)
    return [
        node
        for node in graph
        if node.op_type == "DequantizeLinear" and node not in known and constant_of(node.inputs[0]) is not None
    ]


def _check_node(node: ir.Node, opset: int) -> None:
    if node.domain not in ("", "ai.onnx") or any(a.type in _SUBGRAPHS for a in node.attributes.values()):
        raise InputError(
            f"{node.op_type} {node.name} cannot be made FP16",
            got=f"an operator of {node.domain}" if node.domain else "a branch or a loop",
            expected="operators of ONNX without graphs inside",
            fix="build with --fp32",
        )
    if node.op_type == "QuantizeLinear" and opset < QDQ_OPSET:
        raise InputError(f"Q/DQ of opset {opset} has no FP16", expected=f"opset {QDQ_OPSET} or later")


_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _touches(node: ir.Node, keep: Collection[str]) -> bool:
    return any(value is not None and value.name in keep for value in (*node.inputs, *node.outputs))


class _Rewrite:
    """Changes the types of one graph; each tensor is cast once, however many read it."""

    def __init__(self, graph: ir.Graph, half: set[ir.Node]) -> None:
        self._graph, self._half = graph, half
        self._made_half = {value for node in half for value in node.outputs if value.dtype == _FLOAT}
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def convert_inputs(self, node: ir.Node) -> None:
        if node.op_type in _SHAPES:
            return
        wanted = _HALF if node in self._half else _FLOAT
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != _FLOAT:
                continue
            dtype = _FLOAT if index >= _ALWAYS_FLOAT.get(node.op_type, len(node.inputs)) else wanted
            if dtype != (_HALF if value in self._made_half else _FLOAT):
                node.replace_input_with(index, self._as(value, dtype))

    def convert_outputs(self, node: ir.Node) -> None:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == _FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", _HALF)
        for value in node.outputs:
            if value.dtype == _FLOAT:
                value.type = ir.TensorType(_HALF)

    def restore_outputs(self) -> None:
        """Puts casts in front of the outputs, which keep their names and types."""
        for index, value in enumerate(self._graph.outputs):
            if value not in self._made_half:
                continue
            name, shape = value.name, value.shape
            value.name = f"{name}/fp16"
            output = self._cast(value, _FLOAT, f"{name}/Cast")
            output.name, output.shape = name, shape
            self._graph.outputs[index] = output

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = (value, dtype)
        if key not in self._converted:
            array = constant_of(value)
            suffix = "fp16" if dtype == _HALF else "fp32"
            if array is None:
                self._converted[key] = self._cast(value, dtype, f"{value.name}/{suffix}")
            else:
                self._converted[key] = add_constant(self._graph, f"{value.name}/{suffix}", _halved(value, array))
        return self._converted[key]

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        node = ir.node("Cast", [value], {"to": dtype}, name=name)
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(dtype)
        node.outputs[0].shape = value.shape
        producer = value.producer()
        if producer is not None:
            self._graph.insert_after(producer, node)
        else:
            self._graph.insert_before(self._graph[0], node)
        return node.outputs[0]


def _halved(value: ir.Value, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.array_equal(np.isfinite(half), np.isfinite(array)):
        raise InputError(
            f"constant {value.name} is outside FP16's range",
            got=f"up to {np.abs(array).max():g}",
            expected="at most 65504",
            fix="keep it in float32",
        )
    return half
