"""Stores as integers the weights that a graph quantises itself."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import add_constant, constant_of

_log = logging.getLogger(__name__)

_INTEGERS = {ir.DataType.INT8: np.int8, ir.DataType.UINT8: np.uint8}


def store_weights(model: ir.Model) -> tuple[ir.Model, bool]:
    """Replaces each QuantizeLinear of float32 constants by the 8-bit integers it makes of them.

    Graphs of quantisation-aware training keep float weights and quantise them on the way: four times the size, and
    another pattern than what the passes behind this one know. By the operator's definition,
    https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html, the integers are saturate(round(x / scale) + zero point),
    halves rounded to the even neighbour.
    """
    graph = model.graph
    changed = False
    for node in list(graph):
        if node.op_type != "QuantizeLinear":
            continue
        integers = _quantized(node)
        if integers is None:
            continue
        output = node.outputs[0]
        stored = add_constant(graph, f"{output.name}/stored", integers)
        output.replace_all_uses_with(stored)
        graph.remove(node, safe=True)
        changed = True
    if not changed:
        _log.debug("store_weights: no QuantizeLinear reads float32 constants with constant scales")
    return model, changed


def _quantized(node: ir.Node) -> NDArray[Any] | None:
    """What a QuantizeLinear makes of constants; None where it reads something else, or makes no 8-bit integers."""
    zero_point_value = node.inputs[2] if len(node.inputs) > 2 else None
    values, scale, zero_point = (constant_of(value) for value in (*node.inputs[:2], zero_point_value))
    written = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    dtype = _INTEGERS.get(written if zero_point is None else ir.DataType.from_numpy(zero_point.dtype))
    known = values is not None and scale is not None and (zero_point_value is None or zero_point is not None)
    blocked = node.attributes.get_int("block_size", 0)
    if not known or dtype is None or blocked or node.outputs[0].is_graph_output():
        return None
    assert values is not None
    assert scale is not None
    if values.dtype != np.float32 or scale.dtype != np.float32:
        return None
    along = [1] * values.ndim
    if scale.size > 1:
        along[node.attributes.get_int("axis", 1)] = scale.size
    shift = np.zeros(1, np.float32) if zero_point is None else zero_point.astype(np.float32)
    shift = shift.reshape(along if shift.size > 1 else [1] * values.ndim)
    limits = np.iinfo(dtype)
    rounded = np.rint(values / scale.reshape(along)) + shift
    integers: NDArray[Any] = rounded.clip(limits.min, limits.max).astype(dtype)
    return integers
