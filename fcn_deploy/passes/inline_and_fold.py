"""Writes out what exporters abbreviate: functions, constants that are nodes, and nodes that only give another name."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass, InlinePass, LiftConstantsToInitializersPass

_log = logging.getLogger(__name__)


def write_out(model: ir.Model) -> tuple[ir.Model, bool]:
    """Inlines functions, makes initialisers of Constant nodes, and removes Identity nodes.

    Exporters of fake-quantised nets put scales and zero points behind all three; a graph in which they are constants
    says the same, to passes and builders that look no further.
    """
    rewrites = (InlinePass(), LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0))
    changed = False
    for rewrite in (*rewrites, IdentityEliminationPass()):
        result = rewrite(model)
        model, changed = result.model, changed or result.modified
    if not changed:
        _log.debug("write_out: no functions, Constant or Identity nodes")
    return model, changed
