"""Raises the operator set of a graph."""

from __future__ import annotations

from typing import ClassVar

import onnx
import onnx_ir as ir

from fcn_deploy.errors import InputError
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

# Before, an operator that resizes had one way to do so.
_FIRST_OF_RESIZE_BY_MODES = 11
# What onnxscript's converter is given with an older opset it only renumbers.
_FIRST_OF_ONNXSCRIPT = 18


class RaiseOpset(Rewrite):
    """Converts a model to opset `least`, unless it has that or a later one.

    What:
        Runs onnxscript's converter, and before it ONNX's own for an opset before 18, which the first does not know.
        Tensors keep their names, and the metadata stays.

    Why:
        Some types exist from an opset on, such as Q/DQ in FP16 from 19 on. Models that other tools wrote are of old
        opsets, in which operators have other inputs and meanings.

    Before -> after:
        opset_import { version: 18 }
        opset_import { version: 19 }

    Source:
        onnxscript.version_converter and onnx.version_converter; https://onnx.ai/onnx/operators/ lists the versions of
        each operator.

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
            if found < _FIRST_OF_ONNXSCRIPT:
                model.graph = _converted(model, min(self._least, _FIRST_OF_ONNXSCRIPT)).graph
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


def _converted(model: ir.Model, opset: int) -> ir.Model:
    from onnx import version_converter

    found = model.opset_imports[""]
    proto: onnx.ModelProto = ir.to_proto(model)
    # Initialisers may stand outside the inputs from this version of the format on, which the converter needs to know.
    proto.ir_version = max(proto.ir_version, 4)
    converted: ir.Model = ir.from_proto(version_converter.convert_version(proto, opset))
    if found < _FIRST_OF_RESIZE_BY_MODES:
        for node in converted.graph.all_nodes():
            if node.op_type == "Resize":
                _resize_as_before(node)
    return converted


def _resize_as_before(node: ir.Node) -> None:
    """Gives a Resize the modes that Upsample, and Resize of opset 10, had without stating them.

    The converter leaves them out, and their defaults are others. The pixel nearest to a place was the one before it, as
    https://onnx.ai/onnx/operators/onnx__Upsample.html has it; ONNX Runtime takes the one after it if maps get smaller.
    """
    scales = ir.convenience.get_const_tensor(node.inputs[2]) if node.inputs[2] is not None else None
    smaller = scales is not None and bool((scales.numpy() < 1).any())
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")
    if node.attributes.get_string("mode", "nearest") == "nearest":
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if smaller else "floor")
