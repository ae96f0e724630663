"""Raises the operator set of a graph."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnxscript import version_converter

from fcn_deploy.errors import InputError

_log = logging.getLogger(__name__)


def raise_opset(model: ir.Model, least: int) -> tuple[ir.Model, bool]:
    """Converts a model to opset `least`, by onnxscript's converter, unless it is of that or a later one.

    Tensors keep their names, and the metadata stays.

    Args:
        model: Of ONNX's own operators.
        least: The oldest opset that will do.

    Raises:
        InputError: The converter cannot convert it.
    """
    found = model.opset_imports.get("", 0)
    if found >= least:
        _log.debug("raise_opset: opset %d is no older than %d", found, least)
        return model, False
    try:
        version_converter.convert_version(model, target_version=least)
    except Exception as error:  # it raises whatever the adapter of an operator does
        raise InputError(
            f"the model cannot be converted to opset {least}",
            got=f"opset {found}: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}",
            fix=f"export it with --opset {least}",
        ) from error
    if model.opset_imports.get("") != least:
        raise InputError(
            f"the model cannot be converted to opset {least}",
            got=f"opset {model.opset_imports.get('')}",
            fix=f"export it with --opset {least}",
        )
    return model, True
