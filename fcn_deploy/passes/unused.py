"""Removes nodes and initialisers that nothing reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def remove_unused(model: ir.Model) -> tuple[ir.Model, bool]:
    """Removes every node and initialiser from which no output of the graph is computed."""
    result = RemoveUnusedNodesPass()(model)
    return result.model, result.modified
