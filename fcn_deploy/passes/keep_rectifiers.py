"""Keeps the ReLU in front of a quantisation to FP8, which ONNX Runtime would remove."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import add_constant, optional_input, replace_node
from fcn_deploy.graph.ops import QUANTIZE
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult


class KeepRectifiers(Rewrite):
    """Writes a ReLU or ReLU6 that is quantised to E4M3 as a maximum and a minimum.

    What:
        Each Relu or Clip whose output a QuantizeLinear to E4M3 reads becomes Max, or Max and Min. The last of them has
        its name.

    Why:
        ONNX Runtime removes a Relu or a Clip in front of a QuantizeLinear that cuts off the same values by itself. It
        takes the zero point 0 of E4M3 for the lowest number, as that of uint8 is. But E4M3 has negative numbers, and
        after the Relu is gone they come through. A Clip in front of E4M3 it does not load at all.

    Before -> after:
        Relu -> QuantizeLinear (E4M3)
        Max(., 0) -> QuantizeLinear (E4M3)

    Source:
        Measured, onnxruntime 1.32.0: its rewrites `ReluQuantRewrite` and `ClipQuantRewrite`.
        tests/passes/test_keep_rectifiers.py shows both.
    """

    tolerance: ClassVar[float | None] = 0

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites a graph in place."""
        graph = model.graph
        found = [node for node in graph if node.op_type in ("Relu", "Clip") and _is_quantized(node.outputs[0])]
        for node in found:
            _rewrite(graph, node)
        return RewriteResult(model, bool(found))


def _is_quantized(value: ir.Value) -> bool:
    readers = [use.node for use in value.uses()]
    return any(node.op_type == QUANTIZE and node.outputs[0].dtype == ir.DataType.FLOAT8E4M3FN for node in readers)


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    name = node.name or node.outputs[0].name
    if node.op_type == "Relu":
        limits = [("Max", add_constant(graph, f"{name}/zero", np.zeros((), np.float32)))]
    else:
        given = (("Max", optional_input(node, 1)), ("Min", optional_input(node, 2)))
        limits = [(kind, limit) for kind, limit in given if limit is not None]
    nodes: list[ir.Node] = []
    value = node.inputs[0]
    for kind, limit in limits:
        nodes.append(ir.node(kind, [value, limit], name=f"{name}/{kind}"))
        value = nodes[-1].outputs[0]
    if nodes:  # a Clip without limits passes everything on
        nodes[-1].name = node.name
        replace_node(graph, node, nodes)
