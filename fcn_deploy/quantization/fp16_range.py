"""The FP16 audit: which tensors of a graph hold numbers outside FP16's range, as far as calibration saw."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Histogram
from fcn_deploy.graph.edit import constant_of, optional_input
from fcn_deploy.graph.ops import DEQUANTIZE, QDQ
from fcn_deploy.quantization.params import dequantize
from fcn_deploy.quantization.tensors import activation, passed_on_from

# IEEE 754 binary16: the largest number, and the smallest with all 11 bits.
LARGEST = 65504.0
SMALLEST = 2.0**-14
# Calibration sees some images; others may have larger values. A factor of 2 costs one step of the exponent.
MARGIN = 2.0


@dataclass(frozen=True)
class Fp16Audit:
    """What must stay FP32.

    Attributes:
        audited: Whether there were histograms to look at; constants are always looked at.
        tensors: The tensors with a histogram that do not fit, in graph order; for messages.
        weights: The constants that do not fit, in graph order; for messages.
        keep: The names of all tensors that must stay FP32: these, and the tensors that hold the same values.
    """

    audited: bool
    tensors: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    keep: frozenset[str] = frozenset()


def audit_fp16_range(graph: ir.Graph, histograms: Mapping[str, Histogram] | None) -> Fp16Audit:
    """Looks for numbers that FP16 cannot hold.

    A tensor fits if the largest absolute value that calibration saw is 0, or at least 2**-14 and at most 65504 / 2:
    FP16 loses bits below 2**-14 and is infinite above 65504. A constant needs no margin, so it may reach 65504. The
    tensor between a layer and its ReLU has no histogram. It fits if the output of the ReLU does, because a ReLU makes
    minus infinity 0, like every negative number.

    Args:
        graph: float32, before or after Q/DQ was emitted.
        histograms: By tensor name; None if there was no calibration.
    """
    audited, histograms = histograms is not None, histograms or {}
    beyond = {name for name, histogram in histograms.items() if not _fits(_largest(histogram), LARGEST / MARGIN)}
    tensors, weights, keep = [], [], set()
    for name, value in graph.initializers.items():
        array = constant_of(value)
        if array is not None and _is_weight(value) and not _fits(float(np.abs(array).max(initial=0)), LARGEST):
            weights.append(name)
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.dtype != ir.DataType.FLOAT:
            continue
        dequantized = _dequantized_constant(value)
        if dequantized is not None and not _fits(float(np.abs(dequantized).max(initial=0)), LARGEST):
            weights.append(str(value.name))
        source = _source(value, histograms)
        if source in beyond:
            keep.add(str(value.name))
            if value.name == source:
                tensors.append(source)
    return Fp16Audit(audited, tuple(tensors), tuple(weights), frozenset(keep.union(weights)))


def _fits(largest: float, limit: float) -> bool:
    return largest == 0 or SMALLEST <= largest <= limit


def _largest(histogram: Histogram) -> float:
    return max(abs(histogram.min), abs(histogram.max))


def _is_weight(value: ir.Value) -> bool:
    """Whether a constant is a float that a node other than Q/DQ reads; emission makes scales fit."""
    readers = [use.node.op_type for use in value.uses()]
    return value.dtype == ir.DataType.FLOAT and any(kind not in QDQ for kind in readers)


def _dequantized_constant(value: ir.Value) -> NDArray[np.float32] | None:
    """Returns the weights that a DequantizeLinear makes of constants; None for any other tensor."""
    node = value.producer()
    if node is None or node.op_type != DEQUANTIZE:
        return None
    integers, scale = constant_of(node.inputs[0]), constant_of(node.inputs[1])
    if integers is None or scale is None:
        return None
    zero_point = constant_of(optional_input(node, 2))
    axis = node.attributes.get_int("axis", 1)
    shift = np.zeros((), np.int8) if zero_point is None else zero_point
    return dequantize(integers, scale, shift, axis).astype(np.float32)


def _source(value: ir.Value, histograms: Container[str]) -> str | None:
    """Returns the name of the tensor with a histogram whose values `value` has, after ReLU, pools, crops and Q/DQ."""
    producer = value.producer()
    start = value if producer is None or producer.outputs[0] is not value else activation(producer)
    for current in passed_on_from(start):
        if str(current.name) in histograms:
            return str(current.name)
        last = current
    node = last.producer()
    if node is not None and node.op_type in QDQ and node.inputs[0] is not None:
        return _source(node.inputs[0], histograms)
    return None
