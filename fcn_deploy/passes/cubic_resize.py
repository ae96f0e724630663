"""Keeps the order of axes before a cubic Resize, which ONNX Runtime otherwise changes and then refuses."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.graph.edit import NodeWriter
from fcn_deploy.graph.ops import QUANTIZE
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult, rewrite_each


class KeepCubicResize(Rewrite):
    """Puts a DepthToSpace of blocks of one pixel, which changes nothing, before each cubic Resize.

    What:
        The map is copied.

    Why:
        ONNX Runtime runs INT8 convolutions with channels last, and moves the Transpose after one behind what reads it.
        So the Transpose also comes after a cubic Resize, whose kernel can shrink maps only with channels first: the
        engine does not load, or fails on every image. A DepthToSpace in between stops the Transpose, and ONNX Runtime
        never removes it. A Reshape to the same sizes would be removed where the sizes are known.

    Before -> after:
        map -> Resize (cubic)
        map -> DepthToSpace (blocks of 1) -> Resize (cubic)

    Source:
        The check of `UpsampleBase::ScalesValidation` in onnxruntime/core/providers/cpu/tensor/upsamplebase.h, and the
        session option `optimization.level`: up to ORT_ENABLE_EXTENDED such an engine runs.
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the cubic Resizes one by one, if anything is INT8."""
        if not any(node.op_type == QUANTIZE for node in model.graph):
            return RewriteResult(model, False, (Declined("nothing is quantised"),))
        resizes = (
            node
            for node in model.graph
            if node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "cubic"
        )
        return rewrite_each(model, resizes, _keep)


def _keep(graph: ir.Graph, node: ir.Node) -> str | None:
    source = node.inputs[0]
    assert source is not None
    if source.shape is not None and source.shape.rank() != 4:
        return "it resizes no maps [N, C, H, W]"
    write = NodeWriter(graph, f"{node.name}/kept")
    kept = write.add("DepthToSpace", source, blocksize=1)
    graph.insert_before(node, write.nodes)
    node.replace_input_with(0, kept)
    return None
