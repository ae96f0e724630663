"""Gives the output's dynamic dimensions the names of the input's."""

from __future__ import annotations

import logging

import onnx_ir as ir

_log = logging.getLogger(__name__)


def name_dims(model: ir.Model) -> tuple[ir.Model, bool]:
    """Names batch, height and width of the output as those of the input.

    Shape inference describes the output's height as the minimum of what each crop leaves; that this is the input's
    height is known from the net's geometry and checked by running the model. Dimensions that are numbers stay.
    """
    source, target = model.graph.inputs[0].shape, model.graph.outputs[0].shape
    if source is None or target is None or source.rank() != 4 or target.rank() != 4:
        _log.debug("name_dims declines: input and output are not both of rank 4")
        return model, False
    changed = False
    for axis in (0, 2, 3):
        wanted, found = source[axis], target[axis]
        if isinstance(wanted, ir.SymbolicDim) and isinstance(found, ir.SymbolicDim) and wanted != found:
            target[axis] = wanted
            changed = True
    if not changed:
        _log.debug("name_dims: the output's dimensions are named as the input's")
    return model, changed
