"""Stores 8-bit integers as uint8, which the kernels for x86 take."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import add_constant, constant_of, optional_input
from fcn_deploy.graph.ops import DEQUANTIZE, QDQ, QUANTIZE, SELECTING
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

_INT8, _UINT8 = ir.DataType.INT8, ir.DataType.UINT8
_SHIFT = 128


class ToUint8(Rewrite):
    """Makes int8 activations and weights uint8: integers and zero points become 128 larger, the scales stay.

    What:
        Shifts the named weights with the zero points of the DequantizeLinear that read them, and the zero points of all
        Q/DQ of int8 activations. The float values are the same. Activations are shifted all or none: a node that would
        not give the same with shifted integers, such as a Pad, keeps them all int8.

    Why:
        ONNX Runtime does this itself when it loads a graph on x86, but for activations alone and not for all of them:
        after a max-pool they may stay int8, and the convolution that reads them runs in float. And int8 weights that
        use all 8 bits saturate on CPUs without VNNI; as uint8 they run on other kernels, which take longer.

    Before -> after:
        QuantizeLinear (int8, zero point z) -> DequantizeLinear (z)
        QuantizeLinear (uint8, zero point z + 128) -> DequantizeLinear (z + 128)

    Source:
        https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why do I need to try
        U8U8?"

    Args:
        weights: Names of the int8 constants to make uint8; int8 activations are made uint8 in any case.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, weights: Collection[str]) -> None:
        self._weights = weights

    def call(self, model: ir.Model) -> RewriteResult:
        """Shifts weights, then activations, of a model with Q/DQ."""
        graph = model.graph
        modified = self._shift_weights(graph)
        activations = list(_activations(graph))
        for node in activations:
            if node.op_type not in SELECTING and not _has_constants(node):
                reason = f"activations stay int8: shifted by {_SHIFT}, this {node.op_type} would give other values"
                return RewriteResult(model, modified, (Declined(reason, node.name),))
        for node in activations:
            if node.op_type in QDQ:
                _shift_zero_point(graph, node)
            if node.op_type != DEQUANTIZE:
                node.outputs[0].type = ir.TensorType(_UINT8)
        return RewriteResult(model, modified or bool(activations))

    def _shift_weights(self, graph: ir.Graph) -> bool:
        modified = False
        for node in [node for node in graph if node.op_type == DEQUANTIZE and _has_constants(node)]:
            integers = node.inputs[0]
            assert integers is not None
            array = constant_of(integers)
            if array is not None and integers.name in self._weights:
                name = f"{integers.name}/unsigned"  # weights that several nodes read are stored once
                node.replace_input_with(0, graph.initializers.get(name) or add_constant(graph, name, _shifted(array)))
                _shift_zero_point(graph, node)
                modified = True
        return modified


def _activations(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes that make or read int8 tensors that are not constants."""
    signed: set[ir.Value] = set()
    for node in graph:
        reads = any(value in signed for value in node.inputs)
        makes = node.op_type == QUANTIZE and _written(node) == _INT8
        if reads or makes:
            yield node
        # These give the integers that they read, or the largest of them, so a shift of all goes through.
        if makes or (reads and node.op_type in SELECTING):
            signed.add(node.outputs[0])


def _written(node: ir.Node) -> ir.DataType | None:
    """The type of the integers that a QuantizeLinear makes."""
    zero_point = optional_input(node, 2)
    if zero_point is not None:
        return zero_point.dtype
    return ir.DataType(node.attributes.get_int("output_dtype", 0) or _UINT8)


def _has_constants(node: ir.Node) -> bool:
    """Whether a node is a Q or a DQ with constant scale and zero point."""
    if node.op_type not in QDQ:
        return False
    return all(value is None or constant_of(value) is not None for value in node.inputs[1:])


def _shift_zero_point(graph: ir.Graph, node: ir.Node) -> None:
    scale, zero_point = constant_of(node.inputs[1]), constant_of(optional_input(node, 2))
    assert scale is not None
    shifted = _shifted(np.zeros(scale.shape, np.int8) if zero_point is None else zero_point)
    node.attributes.pop("output_dtype", None)  # it says int8 if there was no zero point to say so
    node.resize_inputs(3)
    node.replace_input_with(2, add_constant(graph, f"{node.outputs[0].name}/zero_point", shifted))


def _shifted(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    return (integers.astype(np.int16) + _SHIFT).astype(np.uint8)
