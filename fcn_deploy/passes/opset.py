"""Raises the operator set of a graph."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.errors import InputError
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult


class RaiseOpset(Rewrite):
    """Converts a model to opset `least`, unless it has that or a later one.

    What:
        Runs onnxscript's converter. Tensors keep their names, and the metadata stays.

    Why:
        Some types exist from an opset on, such as Q/DQ in FP16 from 19 on.

    Before -> after:
        opset_import { version: 18 }
        opset_import { version: 19 }

    Source:
        onnxscript.version_converter; https://onnx.ai/onnx/operators/ lists the versions of each operator.

    Args:
        least: The oldest opset that will do.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, least: int) -> None:
        self._least = least

    def call(self, model: ir.Model) -> RewriteResult:
        """Converts a model of ONNX's own operators.

        Raises:
            InputError: The converter cannot convert it.
        """
        found = model.opset_imports.get("", 0)
        if found >= self._least:
            return RewriteResult(model, False, (Declined(f"opset {found} is not older than {self._least}"),))
        from onnxscript import version_converter  # only few graphs need it

        try:
            version_converter.convert_version(model, target_version=self._least)
        except Exception as error:  # it raises whatever the adapter of an operator raises
            message = str(error).strip() or type(error).__name__
            raise self._error(f"opset {found}: {message.splitlines()[0]}") from error
        if model.opset_imports.get("") != self._least:
            raise self._error(f"opset {model.opset_imports.get('')}")
        return RewriteResult(model, True)

    def _error(self, got: str) -> InputError:
        return InputError(
            f"the model cannot be converted to opset {self._least}",
            got=got,
            fix=f"export it with `opset={self._least}`",
        )
