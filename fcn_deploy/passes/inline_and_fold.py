"""Writes out what exporters abbreviate: functions, constants that are nodes, and nodes that only give another name."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass, InlinePass, LiftConstantsToInitializersPass

from fcn_deploy.passes.rewrite import Rewrite, RewriteResult


class InlineAndFold(Rewrite):
    """Inlines functions, makes initialisers of Constant nodes, and removes Identity nodes.

    What:
        Three passes of onnx_ir, in this order: functions may hold Constant nodes.

    Why:
        Exporters of fake-quantised nets hide scales and zero points behind all three. The later rewrites and the
        builders look for plain constants.

    Before -> after:
        function(x) { Constant -> Identity -> QuantizeLinear -> DequantizeLinear }
        initialiser -> QuantizeLinear -> DequantizeLinear

    Source:
        https://onnx.ai/ir-py/
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Runs the three passes."""
        modified = False
        lift = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        for step in (InlinePass(), lift, IdentityEliminationPass()):
            modified |= step(model).modified
        return RewriteResult(model, modified)
