"""Stores 8-bit integers without a sign, as the kernels of x86 want them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import add_constant, constant_of

_log = logging.getLogger(__name__)

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_INT8, _UINT8 = ir.DataType.INT8, ir.DataType.UINT8
_SHIFT = 128
# They give integers they were given, or the largest of them, so a shift of all goes through.
_MOVING = ("MaxPool", "Transpose", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Gather")


def store_unsigned(model: ir.Model, weights: Collection[str]) -> tuple[ir.Model, bool]:
    """Makes int8 activations and weights uint8: integers and zero points are 128 more, so values and scales stay.

    ONNX Runtime does so itself where it loads a graph on x86, with activations only and not with all of them: behind a
    max-pool they may stay int8, and the convolution that reads them float.

    Args:
        model: With Q/DQ.
        weights: Names of the int8 constants that are to become uint8; activations do, whichever they are.
    """
    graph = model.graph
    changed = False
    for node in [node for node in graph if node.op_type == _DEQUANTIZE and _has_constants(node)]:
        integers = node.inputs[0]
        assert integers is not None
        array = constant_of(integers)
        if array is not None and integers.name in weights:
            name = f"{integers.name}/unsigned"
            node.replace_input_with(0, graph.initializers.get(name) or add_constant(graph, name, _shifted(array)))
            _shift_zero_point(graph, node)
            changed = True
    activations = list(_activations(graph))
    stray = [node for node in activations if node.op_type not in _MOVING and not _has_constants(node)]
    if stray:
        _log.debug(
            "store_unsigned: activations stay int8, for %s %s would not fit them", stray[0].op_type, stray[0].name
        )
        return model, changed
    if not activations and not changed:
        _log.debug("store_unsigned: nothing is int8 that could be uint8")
    for node in activations:
        if node.op_type in (_QUANTIZE, _DEQUANTIZE):
            _shift_zero_point(graph, node)
        if node.op_type != _DEQUANTIZE:
            node.outputs[0].type = ir.TensorType(_UINT8)
    return model, changed or bool(activations)


def _activations(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes that make or read int8 tensors that are no constants."""
    signed: set[ir.Value] = set()
    for node in graph:
        reads = any(value in signed for value in node.inputs)
        makes = node.op_type == _QUANTIZE and _made(node) == _INT8
        if reads or makes:
            yield node
        if makes or (reads and node.op_type in _MOVING):
            signed.add(node.outputs[0])


def _made(node: ir.Node) -> ir.DataType | None:
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is not None:
        return zero_point.dtype
    return ir.DataType(node.attributes.get_int("output_dtype", 0) or _UINT8)


def _has_constants(node: ir.Node) -> bool:
    """Whether a node is a Q or a DQ whose scale and zero point are known."""
    if node.op_type not in (_QUANTIZE, _DEQUANTIZE):
        return False
    return all(value is None or constant_of(value) is not None for value in node.inputs[1:])


def _shift_zero_point(graph: ir.Graph, node: ir.Node) -> None:
    scale, zero_point = (constant_of(value) for value in (*node.inputs[1:], None)[:2])
    assert scale is not None
    shifted = _shifted(np.zeros(scale.shape, np.int8) if zero_point is None else zero_point)
    node.attributes.pop("output_dtype", None)  # int8, said where there was no zero point to say so
    node.resize_inputs(3)
    node.replace_input_with(2, add_constant(graph, f"{node.outputs[0].name}/zero_point", shifted))


def _shifted(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    return (integers.astype(np.int16) + _SHIFT).astype(np.uint8)
