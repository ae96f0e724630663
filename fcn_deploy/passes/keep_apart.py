"""Keeps OpenVINO from merging what is added by channel into the quantisation after it."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import NodeWriter, constant_of
from fcn_deploy.graph.ops import QUANTIZE
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult, rewrite_each


class KeepApart(Rewrite):
    """Puts a Max in front of the QuantizeLinear of given names.

    What:
        The other input of the Max is the lowest value that the pair lets through, so that the numbers are the same.

    Why:
        OpenVINO merges a bias with the quantisation after it. If a kernel of its own computes the two, in a graph of an
        open batch size, it gives every channel the bias of the first (seen in 2026.4.1, in nets whose maps of 16
        channels are quantised). With a Max between them, bias, Max and quantisation are one kernel, and a right one.

    Before -> after:
        Conv -> QuantizeLinear
        Conv -> Max -> QuantizeLinear

    Source:
        docs/openvino.md.

    Args:
        names: Of the nodes, for instance those that OpenVINO computes by a kernel of their own.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the nodes one by one."""
        nodes = (node for node in model.graph if node.op_type == QUANTIZE and node.name in self._names)
        return rewrite_each(model, nodes, _rewrite)


def _rewrite(graph: ir.Graph, quantize: ir.Node) -> str | None:
    scale = constant_of(quantize.inputs[1])
    zero_point = constant_of(quantize.inputs[2]) if len(quantize.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero_point is None or scale.size > 1:
        return "its scale is computed, or one of several channels"
    steps = float(np.iinfo(zero_point.dtype).min) - float(zero_point.ravel()[0])
    write = NodeWriter(graph, f"{quantize.name}/apart")
    lowest = write.constant("lowest", np.asarray(steps * float(scale.ravel()[0]), np.float32))
    value = quantize.inputs[0]
    assert value is not None
    apart = write.add("Max", value, lowest)
    for node in write.nodes:
        graph.insert_before(quantize, node)
    quantize.replace_input_with(0, apart)
    return None
