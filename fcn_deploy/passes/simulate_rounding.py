"""Writes a graph of 16-bit floats in float32, its rounding made explicit: a CPU then computes what they would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import add_constant, constant_of, insert_cast
from fcn_deploy.graph.ops import DEQUANTIZE, SELECTING
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult

_FP32 = ir.DataType.FLOAT
_NAMES = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
# They give values that they read, which are rounded already. The output of a DequantizeLinear is not rounded either:
# TensorRT computes its readers from the integers.
_EXACT = SELECTING | {"Concat", DEQUANTIZE}


class SimulateRounding(Rewrite):
    """Makes every FP16 and BF16 tensor float32, and rounds the output of each node that made one.

    What:
        A Cast to the type and a Cast back after each node that computes in it. Sums inside a node are float32. If only
        a Relu reads a node, the Relu's output is rounded instead, which gives the same. Q/DQ is computed in float32
        with the graph's own scales, to integers or to E4M3.

    Why:
        ONNX Runtime's CPU provider has no convolutions in these types. It runs an FP16 graph in float32 and removes the
        casts between the nodes, even the graph's own, so that nothing is rounded and nothing overflows. Pairs of casts
        between float32 nodes it leaves alone.

    Before -> after:
        Conv (fp16) -> Relu (fp16)
        Conv (fp32) -> Relu (fp32) -> Cast (to fp16) -> Cast (to fp32)

    Source:
        Measured: docs/tensorrt-graphs.md, "Measuring without a GPU".
    """

    # It makes the rounding happen that ONNX Runtime leaves out.
    tolerance: ClassVar[float | None] = None

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites constants, then nodes, of a graph that `ToFp16` or `ToBf16` has typed."""
        graph = model.graph
        modified = False
        for name, value in list(graph.initializers.items()):
            if value.dtype in _NAMES:
                array = constant_of(value)
                assert array is not None
                value.replace_all_uses_with(add_constant(graph, f"{name}/fp32", array.astype(np.float32)))
                modified = True
        for node in list(graph):
            for value in node.outputs:
                if value.dtype in _NAMES:
                    _round(graph, node, value)
                    modified = True
        return RewriteResult(model, modified)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Makes an output of a node float32, and rounds it if the node computes."""
    uses, dtype = list(value.uses()), value.dtype
    assert dtype is not None
    if node.op_type == "Cast":  # it rounds by itself
        _read_instead(uses, insert_cast(graph, value, _FP32, f"{value.name}/fp32"))
        return
    value.type = ir.TensorType(_FP32)
    if node.op_type not in _EXACT and [reader.op_type for reader, _ in uses] != ["Relu"]:
        rounded = insert_cast(graph, value, dtype, f"{value.name}/{_NAMES[dtype]}")
        _read_instead(uses, insert_cast(graph, rounded, _FP32, f"{rounded.name}/fp32"))


def _read_instead(uses: Sequence[tuple[ir.Node, int]], value: ir.Value) -> None:
    for node, index in uses:
        node.replace_input_with(index, value)
