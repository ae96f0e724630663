"""Emission for TensorRT: explicit quantisation by Q/DQ pairs that its builder fuses into INT8 kernels.

Everything is symmetric int8, weights per output channel, activations per tensor, zero points 0, biases float: all that
TensorRT's INT8 has. The placement follows NVIDIA's rules, "Q/DQ Layer-Placement Recommendations" in
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html, and what they come to
here is told in docs/tensorrt-graphs.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.graph.edit import add_constant, constant_of
from fcn_deploy.quantization.bias import Means, bias_of, input_mean, mean_shift, set_bias
from fcn_deploy.quantization.params import SymmetricInt8
from fcn_deploy.quantization.qdq import add_dequantized, add_pair, quantized_weights, range_of
from fcn_deploy.quantization.rounding import Rounding, check_rounding
from fcn_deploy.quantization.selection import chosen_convolutions
from fcn_deploy.quantization.tensors import activation, data_input, passed_on_from


@dataclass(frozen=True)
class TensorRtScheme:
    """How to quantise for TensorRT.

    Attributes:
        fp16_scales: Whether scales are numbers that FP16 holds. A graph whose other tensors are FP16 needs them. They
            are rounded up, so a range stays covered, and before the integers are computed, so nothing else is lost.
        rounding: How weights are rounded: `nearest` or `correlated`; see `fcn_deploy.quantization.rounding`. With
            8 bits the gain of `correlated` is too small to measure.

    Raises:
        UsageError: The rounding is unknown.
    """

    fp16_scales: bool = False
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        check_rounding(self.rounding)

    @property
    def integers(self) -> SymmetricInt8:
        """The integers of weights and activations."""
        return SymmetricInt8(scale_type="float16" if self.fp16_scales else "float32")


def emit_tensorrt(
    model: ir.Model,
    ranges: Mapping[str, Range],
    layers: Collection[str],
    scheme: TensorRtScheme | None = None,
    means: Means | None = None,
) -> ir.Model:
    """Quantises layers in place.

    Args:
        model: As exported and simplified, with float32 `image` and `logits`.
        ranges: By tensor name, for the inputs of the layers and of the sums that run with them.
        layers: Names of the layers to quantise, from `quantizable_layers`.
        scheme: What scales have to be, and how weights are rounded.
        means: By tensor name, the mean of each channel of what the layers read, float64 [C], by which their biases are
            corrected (see `quant.bias`; padding is ignored). None or empty: biases stay what they are.

    Returns:
        The model; its float tensors are float32, to be made FP16 by a pass if they are to be.

    Raises:
        InputError: A layer is not in the graph or cannot be quantised, or a tensor has no range, or no means
            where others have.
    """
    scheme = scheme or TensorRtScheme()
    graph = model.graph
    convs = chosen_convolutions(graph, layers)
    readers: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node, index in [*((conv, 0) for conv in convs), *_residual_inputs(graph, set(convs))]:
        value = node.inputs[index]
        assert value is not None
        readers.setdefault(value, []).append((node, index))
    for conv in convs:
        _quantize_weights(graph, conv, scheme, means)
    for value, uses in readers.items():
        dequantized = add_pair(graph, value, scheme.integers.of_range(range_of(value, ranges)))
        for node, index in uses:
            # Other readers stay on the float tensor: a score layer reads the output of the pool, not what was rounded.
            node.replace_input_with(index, dequantized)
    return model


def _residual_inputs(graph: ir.Graph, convs: set[ir.Node]) -> list[tuple[ir.Node, int]]:
    """The inputs of residual sums that have to be INT8 for the sum to become part of a convolution.

    TensorRT computes Conv, Add and ReLU in one kernel, whose other input has the type of its output. The output is INT8
    where a quantised convolution reads it; so must be what goes past the block. The convolution's own result is left
    alone, for a Q/DQ pair between it and the sum would part the two.
    """
    read = {value for conv in convs for value in passed_on_from(data_input(conv))}
    order = {node: position for position, node in enumerate(graph)}
    found = []
    for node in graph:
        if node.op_type != "Add" or activation(node) not in read:
            continue
        own = [index for index, value in enumerate(node.inputs) if value is not None and _fuses(value, convs)]
        if own and all(constant_of(value) is None for value in node.inputs):
            # Of two convolutions the later one takes the sum in: the other's result is there by then.
            last = max(own, key=lambda index: order[node.inputs[index].producer()])  # type: ignore[index, union-attr]
            found.append((node, 1 - last))
    return found


def _fuses(value: ir.Value, convs: set[ir.Node]) -> bool:
    """Whether a sum can become part of the node that makes `value`: a quantised convolution nobody else reads."""
    return value.producer() in convs and len(list(value.uses())) == 1 and not value.is_graph_output()


def _quantize_weights(graph: ir.Graph, conv: ir.Node, scheme: TensorRtScheme, means: Means | None) -> None:
    weights = constant_of(conv.inputs[1])
    assert weights is not None
    params = scheme.integers.of_weights(weights)
    integers = quantized_weights(conv, weights, params, scheme.rounding)
    conv.replace_input_with(1, add_dequantized(graph, conv, f"{conv.name}.weight", integers, params))
    shift = mean_shift(weights, integers, params.scale, input_mean(conv, weights, means))
    if shift.any():
        bias = bias_of(conv)
        corrected = (0 if bias is None else bias) - shift
        set_bias(conv, add_constant(graph, f"{conv.name}.bias/corrected", corrected.astype(np.float32)))
