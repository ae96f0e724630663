"""Stores as integers the weights that a graph quantises itself."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import add_constant, constant_of, optional_input
from fcn_deploy.graph.ops import QUANTIZE
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

_INTEGERS = {ir.DataType.INT8: np.int8, ir.DataType.UINT8: np.uint8}


class FoldQuantizedWeights(Rewrite):
    """Computes each QuantizeLinear of float32 constants: its 8-bit integers become the constant.

    What:
        Stores saturate(round(x / scale) + zero point), with halves rounded to the even neighbour, and removes the node.

    Why:
        Graphs of quantisation-aware training keep float weights and quantise them on the way. That is four times the
        size, and not the pattern that the later rewrites look for.

    Before -> after:
        weights (float32) -> QuantizeLinear -> DequantizeLinear -> Conv
        weights (int8) -> DequantizeLinear -> Conv

    Source:
        https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Folds every QuantizeLinear whose data is constant."""
        graph = model.graph
        modified = False
        declined = []
        for node in [node for node in graph if node.op_type == QUANTIZE and constant_of(node.inputs[0]) is not None]:
            reason = _reason_against(node)
            if reason is not None:
                declined.append(Declined(reason, node.name or node.outputs[0].name))
                continue
            output = node.outputs[0]
            stored = add_constant(graph, f"{output.name}/stored", _quantized(node))
            output.replace_all_uses_with(stored)
            graph.remove(node, safe=True)
            modified = True
        return RewriteResult(model, modified, tuple(declined))


def _reason_against(node: ir.Node) -> str | None:
    values, scale = constant_of(node.inputs[0]), constant_of(node.inputs[1])
    zero_point = optional_input(node, 2)
    if scale is None or (zero_point is not None and constant_of(zero_point) is None):
        return "its scale or zero point is computed"
    assert values is not None
    if values.dtype != np.float32 or scale.dtype != np.float32:
        return f"it quantises {values.dtype} by a scale of {scale.dtype}, not float32 by float32"
    if _written(node) not in _INTEGERS:
        return f"it makes {_written(node).name.lower()}, not 8-bit integers"
    if node.attributes.get_int("block_size", 0):
        return "it has a scale for each block"
    if node.outputs[0].is_graph_output():
        return "its integers are an output of the graph"
    return None


def _written(node: ir.Node) -> ir.DataType:
    """The type of the integers: that of the zero point, else what the attribute says, else uint8."""
    zero_point = constant_of(optional_input(node, 2))
    if zero_point is not None:
        return ir.DataType.from_numpy(zero_point.dtype)
    return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)


def _quantized(node: ir.Node) -> NDArray[Any]:
    values, scale, zero_point = (constant_of(optional_input(node, index)) for index in range(3))
    assert values is not None
    assert scale is not None
    along = [1] * values.ndim
    if scale.size > 1:
        along[node.attributes.get_int("axis", 1)] = scale.size
    shift = np.zeros(1, np.float32) if zero_point is None else zero_point.astype(np.float32)
    shift = shift.reshape(along if shift.size > 1 else [1] * values.ndim)
    dtype = _INTEGERS[_written(node)]
    limits = np.iinfo(dtype)
    rounded = np.rint(values / scale.reshape(along)) + shift
    integers: NDArray[Any] = rounded.clip(limits.min, limits.max).astype(dtype)
    return integers
