"""Finds out the types of a graph's tensors again."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from fcn_deploy.passes.rewrite import Rewrite, RewriteResult


class InferTypes(Rewrite):
    """Replaces what a graph states of its own tensors, types and shapes, by what ONNX infers.

    What:
        Runs ONNX's inference without what was stated; inputs, outputs and constants keep theirs.

    Why:
        Other tools state nothing, or what was true before the graph was rewritten or for the size they traced.

    Before -> after:
        image (float32) -> Transpose (stated: uint8) -> Cast
        image (float32) -> Transpose (float32) -> Cast

    Source:
        https://onnx.ai/onnx/repo-docs/ShapeInference.html
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Infers the types of a model without local functions."""
        outputs = set(model.graph.outputs)
        for node in model.graph.all_nodes():
            for value in node.outputs:
                if value not in outputs:
                    value.type = value.shape = None
        ShapeInferencePass()(model)
        return RewriteResult(model, True)
