"""Forgets the shapes that a graph states of its own tensors."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.passes.rewrite import Rewrite, RewriteResult


class ForgetShapes(Rewrite):
    """Takes the shapes off all tensors between the inputs and the outputs; their types stay.

    What:
        Inputs, outputs and constants keep their shapes.

    Why:
        torch states the shapes at the size that it traced: a map that was 1x1 there is said to be 1x1. ONNX Runtime
        plans its buffers by what is said, and then fails at every other size. What a graph really makes, every library
        infers itself.

    Before -> after:
        image [n, 3, h, w] -> AveragePool [n, 512, 1, 1] -> logits [n, 5, h, w]
        image [n, 3, h, w] -> AveragePool -> logits [n, 5, h, w]

    Source:
        https://onnx.ai/onnx/repo-docs/IR.html, "value_info"
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Forgets the shapes of the nodes' outputs."""
        kept = set(model.graph.outputs)
        stated = [
            value for node in model.graph for value in node.outputs if value.shape is not None and value not in kept
        ]
        for value in stated:
            value.shape = None
        return RewriteResult(model, bool(stated))
