"""Emission: puts Q/DQ pairs into a graph, as ONNX Runtime's CPU kernels want them.

Activations are asymmetric uint8 per tensor, weights symmetric int8 per output channel, biases int32: what ONNX Runtime
fuses into QLinearConv (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.quantization.bias import Means, bias_of, input_mean, mean_output, mean_shift, set_bias
from fcn_deploy.quantization.params import AsymmetricUint8, QuantParams, SymmetricInt8
from fcn_deploy.quantization.qdq import add_dequantized, add_pair, quantized_weights, range_of
from fcn_deploy.quantization.rounding import Rounding, check_rounding
from fcn_deploy.quantization.selection import chosen_convolutions
from fcn_deploy.quantization.tensors import activation, data_input, is_rectifier, passed_on_from

# Half of what 32 bits hold: the other half is for the products the bias is added to, at most 255 * 127 a tap. What
# `correlated` rounding adds beyond it, at most 255 a tap in a channel of nearly zero weights, is clipped.
_BIAS_LIMIT = 2**30
# The smallest positive float32.
_LEAST_BIAS_SCALE = 2.0**-149


@dataclass(frozen=True)
class OrtScheme:
    """How to quantise for ONNX Runtime on a CPU.

    Attributes:
        weight_limit: Weights become integers in -limit..limit. 64 is right on every CPU: x86 kernels without VNNI add
            two products of a uint8 and an int8 in 16 bits, and 2 * 255 * 64 just fits. 127 needs VNNI.
        rounding: How weights are rounded: `nearest` or `correlated`; see `fcn_deploy.quantization.rounding`.

    Raises:
        InputError: The limit is neither 64 nor 127.
        UsageError: The rounding is unknown.
    """

    weight_limit: int = 64
    rounding: Rounding = "correlated"

    def __post_init__(self) -> None:
        if self.weight_limit not in (64, 127):
            raise InputError("bad weight limit", got=self.weight_limit, expected="64 or 127")
        check_rounding(self.rounding)

    @property
    def activations(self) -> AsymmetricUint8:
        """The integers of activations."""
        return AsymmetricUint8()

    @property
    def weights(self) -> SymmetricInt8:
        """The integers of weights."""
        return SymmetricInt8(self.weight_limit)


def emit_onnxruntime(
    model: ir.Model,
    ranges: Mapping[str, Range],
    layers: Collection[str],
    scheme: OrtScheme | None = None,
    means: Means | None = None,
) -> ir.Model:
    """Quantises layers in place.

    Args:
        model: As exported and simplified, with float32 `image` and `logits`.
        ranges: By tensor name, for the inputs and outputs of the layers.
        layers: Names of the layers to quantise, from `quantizable_layers`.
        scheme: Integer types and limits.
        means: By tensor name, the mean of each channel of what the layers read, float64 [C], by which their biases are
            corrected (see `quant.bias`; padding is ignored). None or empty: biases stay what they are.

    Returns:
        The model.

    Raises:
        InputError: A layer is not in the graph or cannot be quantised, or a tensor has no range, or no means
            where others have.
    """
    scheme = scheme or OrtScheme()
    graph = model.graph
    convs = chosen_convolutions(graph, layers)
    integer = _integer_tensors(graph, convs)
    params = {value: scheme.activations.of_range(range_of(value, ranges)) for value in integer}
    # Activations last: all else goes by the tensors that nodes read before Q/DQ comes between.
    in_integers = _integer_nodes(graph, set(convs), set(integer))
    for conv in convs:
        _quantize_weights_and_bias(graph, conv, params[data_input(conv)].scale, scheme, means)
    for value in integer:
        _quantize_activation(graph, value, params[value], in_integers)
    for node in [node for node in graph if node.op_type == "Conv" and node not in convs]:
        _keep_float(graph, node)
    return model


def _integer_tensors(graph: ir.Graph, convs: list[ir.Node]) -> list[ir.Value]:
    """The tensors that exist as integers, in graph order: what quantised convolutions read and write.

    A max-pool between two of them runs on integers as well, so its input is one of the tensors.
    """
    wanted = {data_input(conv) for conv in convs} | {activation(conv) for conv in convs}
    for node in reversed(graph):
        if node.op_type == "MaxPool" and node.outputs[0] in wanted:
            wanted.add(data_input(node))
    ordered = [*graph.inputs, *(node.outputs[0] for node in graph)]
    return [value for value in ordered if value in wanted]


def _quantize_weights_and_bias(
    graph: ir.Graph, conv: ir.Node, input_scale: NDArray[np.floating], scheme: OrtScheme, means: Means | None
) -> None:
    weights = constant_of(conv.inputs[1])
    assert weights is not None
    bias, mean = bias_of(conv), input_mean(conv, weights, means)
    # The scale of a bias is that of the input times that of the weights. In a channel of nearly zero weights the bias
    # would need more than 32 bits, or float32 would not hold its scale; a coarser scale costs such a channel nothing.
    largest_bias = np.abs(0 if bias is None else bias) + mean_output(np.abs(weights), np.abs(mean))
    least_scale = np.maximum(largest_bias / _BIAS_LIMIT, _LEAST_BIAS_SCALE) / float(input_scale)
    params = scheme.weights.of_weights(weights, least_scale)
    integers = quantized_weights(conv, weights, params, scheme.rounding)
    name = str(conv.name)
    conv.replace_input_with(1, add_dequantized(graph, conv, f"{name}.weight", integers, params))
    corrected = (0 if bias is None else bias) - mean_shift(weights, integers, params.scale, mean)
    if bias is not None or corrected.any():
        bias_params = QuantParams(params.scale * input_scale, "int32", -_BIAS_LIMIT, _BIAS_LIMIT)
        bias_integers = bias_params.quantize(corrected)
        set_bias(conv, add_dequantized(graph, conv, f"{name}.bias", bias_integers, bias_params))


def _quantize_activation(graph: ir.Graph, value: ir.Value, params: QuantParams, in_integers: set[ir.Node]) -> None:
    uses = list(value.uses())
    producer = value.producer()
    dequantized = add_pair(graph, value, params)
    for use in uses:
        # What was made in integers exists only so; what was made in float stays float for those who read it so.
        if producer in in_integers or use.node in in_integers:
            use.node.replace_input_with(use.idx, dequantized)


def _keep_float(graph: ir.Graph, conv: ir.Node) -> None:
    """Keeps a convolution float that reads what was dequantised and gives what is quantised again.

    Between a DequantizeLinear and a QuantizeLinear ONNX Runtime quantises the weights of a float convolution by itself,
    to 8 bits per tensor, which is neither asked for nor right on CPUs without VNNI. The largest of one tensor is that
    tensor; unlike an Identity no optimiser removes it.
    """
    value = data_input(conv)
    # Past a max-pool, say: ONNX Runtime lets it run on integers and dequantises behind it.
    makers = [source.producer() for source in passed_on_from(value)]
    readers = [use.node.op_type for use in activation(conv).uses()]
    if "QuantizeLinear" not in readers or not any(node and node.op_type == "DequantizeLinear" for node in makers):
        return
    copy = ir.node("Max", [value], name=f"{conv.name}/float")
    copy.outputs[0].name = copy.name
    copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
    graph.insert_before(conv, copy)
    conv.replace_input_with(0, copy.outputs[0])


def _integer_nodes(graph: ir.Graph, convs: set[ir.Node], integer: set[ir.Value]) -> set[ir.Node]:
    """The nodes that ONNX Runtime runs on integers: beside convolutions what stands between them and needs no more."""
    found: set[ir.Node] = set()
    for node in graph:
        if is_rectifier(node):
            runs = node.inputs[0] is not None and node.inputs[0].producer() in found
        elif node.op_type == "MaxPool":
            runs = node.outputs[0] in integer
        elif node.op_type == "Add":  # of a residual block; a bias is no tensor of the graph's
            runs = activation(node) in integer and all(value in integer for value in node.inputs)
        else:
            runs = node in convs
        if runs:
            found.add(node)
    return found
