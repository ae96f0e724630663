"""Makes the data of a graph FP16: a typed graph, in which every tensor says what it is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import add_constant, constant_of, insert_cast
from fcn_deploy.graph.ops import DEQUANTIZE, MEASURING, QUANTIZE
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

_FP32, _FP16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
# Inputs that an operator takes in float32 only, whatever the type of its data: by operator, from this position on.
_ALWAYS_FP32 = {"Resize": 1}
_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
# The first opset in which Q/DQ takes FP16: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
QDQ_OPSET = 19


class ToFp16(Rewrite):
    """Makes float32 tensors FP16, with casts after the inputs and before the outputs, which stay float32.

    What:
        What is computed from the graph's inputs is data: it becomes FP16 with the constants it meets. What is computed
        from shapes alone stays as it is. A node that reads or makes a tensor in `keep` runs in float32, with the casts
        this needs. Tensors keep their names, but the output of a cast before an output takes that output's name.

    Why:
        Strongly typed TensorRT networks take each type from the graph; no builder flag lowers a precision.

    Before -> after:
        image (fp32) -> Conv (fp32) -> logits (fp32)
        image (fp32) -> Cast -> Conv (fp16) -> Cast -> logits (fp32)

    Source:
        https://docs.nvidia.com/deeplearning/tensorrt, "Strongly Typed Networks".

    Args:
        keep: Names of the tensors that stay float32.
    """

    # Each tensor is rounded to 11 bits; what that does to the output depends on the net.
    tolerance: ClassVar[float | None] = None

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._keep = keep

    def call(self, model: ir.Model) -> RewriteResult:
        """Types a model whose float inputs are float32.

        Raises:
            InputError: The type of a tensor is not known, a constant is outside FP16's range, Q/DQ is of an opset
                without FP16, or the graph has branches or operators that ONNX does not define, whose types are not
                known.
        """
        if any(value.dtype is None for node in model.graph for value in node.outputs if value.name):
            ShapeInferencePass()(model)
        graph = model.graph
        data = _data_nodes(graph)
        if not data:
            return RewriteResult(model, False, (Declined("no node computes on a float32 input"),))
        for node in data:
            _check_node(node, model.opset_imports.get("", 0))
        in_fp16 = {node for node in data if not _touches(node, self._keep)}
        for node in _constant_nodes(graph, data):  # weights stored as integers get the type of their readers
            readers = {use.node for use in node.outputs[0].uses()}
            data.append(node)
            if readers <= in_fp16 and not _touches(node, self._keep):
                in_fp16.add(node)
        retyped = _Retyped(graph, in_fp16)
        for node in data:
            retyped.convert_inputs(node)
        for node in in_fp16:
            retyped.convert_outputs(node)
        retyped.restore_outputs()
        return RewriteResult(model, bool(in_fp16))


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


def _check_node(node: ir.Node, opset: int) -> None:
    if node.domain not in ("", "ai.onnx") or any(a.type in _SUBGRAPHS for a in node.attributes.values()):
        raise InputError(
            f"{node.op_type} {node.name} cannot be made FP16",
            got=f"an operator of {node.domain}" if node.domain else "a branch or a loop",
            expected="operators of ONNX without graphs inside",
            fix='build with `precision="fp32"`',
        )
    if node.op_type == QUANTIZE and opset < QDQ_OPSET:
        raise InputError(f"Q/DQ of opset {opset} has no FP16", expected=f"opset {QDQ_OPSET} or later")


def _touches(node: ir.Node, keep: Collection[str]) -> bool:
    return any(value is not None and value.name in keep for value in (*node.inputs, *node.outputs))


class _Retyped:
    """Changes the types of one graph; each tensor is cast once, however many nodes read it."""

    def __init__(self, graph: ir.Graph, in_fp16: set[ir.Node]) -> None:
        self._graph, self._in_fp16 = graph, in_fp16
        self._fp16_values = {value for node in in_fp16 for value in node.outputs if value.dtype == _FP32}
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def convert_inputs(self, node: ir.Node) -> None:
        if node.op_type in MEASURING:
            return
        wanted = _FP16 if node in self._in_fp16 else _FP32
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype != _FP32:
                continue
            dtype = _FP32 if index >= _ALWAYS_FP32.get(node.op_type, len(node.inputs)) else wanted
            if dtype != (_FP16 if value in self._fp16_values else _FP32):
                node.replace_input_with(index, self._as(value, dtype))

    def convert_outputs(self, node: ir.Node) -> None:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == _FP32:
            node.attributes["to"] = ir.AttrInt64("to", _FP16)
        for value in node.outputs:
            if value.dtype == _FP32:
                value.type = ir.TensorType(_FP16)

    def restore_outputs(self) -> None:
        """Puts casts before the outputs, which keep their names and types."""
        for index, value in enumerate(self._graph.outputs):
            if value not in self._fp16_values:
                continue
            name, shape = value.name, value.shape
            value.name = f"{name}/fp16"
            output = insert_cast(self._graph, value, _FP32, f"{name}/Cast")
            output.name, output.shape = name, shape
            self._graph.outputs[index] = output

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = (value, dtype)
        if key not in self._converted:
            array = constant_of(value)
            name = f"{value.name}/{'fp16' if dtype == _FP16 else 'fp32'}"
            if array is None:
                self._converted[key] = insert_cast(self._graph, value, dtype, name)
            else:
                self._converted[key] = add_constant(self._graph, name, _rounded(value, array))
        return self._converted[key]


def _rounded(value: ir.Value, array: NDArray[Any]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        rounded = array.astype(np.float16)
    if not np.array_equal(np.isfinite(rounded), np.isfinite(array)):
        raise InputError(
            f"constant {value.name} is outside FP16's range",
            got=f"up to {np.abs(array).max():g}",
            expected="at most 65504",
            fix="keep it in float32",
        )
    return rounded
