"""Writes an FP16 graph in float32 with its rounding made explicit, so that a CPU computes what FP16 would."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import add_constant, constant_of

_log = logging.getLogger(__name__)

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
# They give values they were given, so nothing is left to round. A DequantizeLinear is not rounded either: TensorRT
# computes what reads it from the integers.
_EXACT = frozenset(
    {"MaxPool", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Gather", "Concat"}
    | {"DequantizeLinear"}
)


def widen_half(model: ir.Model) -> tuple[ir.Model, bool]:
    """Makes every FP16 tensor float32, and rounds to FP16 where a node made one, by a Cast there and back.

    ONNX Runtime's CPU provider has no FP16 convolutions. It runs an FP16 graph in float32 and removes the casts between
    the nodes, even the graph's own, so that nothing is rounded and nothing overflows; pairs of casts between float32
    nodes it leaves alone. Sums inside a node are float32 here. Where a ReLU alone reads a node, the ReLU's output is
    rounded, which comes to the same. Q/DQ is computed in float32 with the graph's own scales.
    """
    graph = model.graph
    changed = False
    for name, value in list(graph.initializers.items()):
        if value.dtype == _HALF:
            array = constant_of(value)
            assert array is not None
            wide = add_constant(graph, f"{name}/fp32", array.astype(np.float32))
            value.replace_all_uses_with(wide)
            changed = True
    for node in list(graph):
        for value in node.outputs:
            if value.dtype != _HALF:
                continue
            changed = True
            uses = list(value.uses())
            if node.op_type == "Cast":  # it rounds by itself
                _read_instead(uses, _cast_behind(graph, value, _FLOAT))
                continue
            value.type = ir.TensorType(_FLOAT)
            if node.op_type not in _EXACT and [reader.op_type for reader, _ in uses] != ["Relu"]:
                _read_instead(uses, _cast_behind(graph, _cast_behind(graph, value, _HALF), _FLOAT))
    if not changed:
        _log.debug("widen_half: the graph has no FP16 tensors")
    return model, changed


def _cast_behind(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    name = f"{value.name}/{'fp16' if dtype == _HALF else 'fp32'}"
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, ir.TensorType(dtype), value.shape
    producer = value.producer()
    assert producer is not None  # a typed graph's inputs are float32 or uint8
    graph.insert_after(producer, node)
    return node.outputs[0]


def _read_instead(uses: Sequence[tuple[ir.Node, int]], value: ir.Value) -> None:
    for node, index in uses:
        node.replace_input_with(index, value)
