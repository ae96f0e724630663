"""Emission for ONNX Runtime: puts Q/DQ pairs into a graph, as its CPU kernels want them.

Activations are asymmetric uint8 per tensor, weights symmetric int8 per output channel, biases int32. ONNX Runtime fuses
these into QLinearConv (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.ops import DEQUANTIZE, QUANTIZE, SELECTING
from fcn_deploy.quantization.bias import Means, bias_of, input_mean, mean_output, mean_shift, set_bias
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.integer_part import counts_beyond_map, integer_part
from fcn_deploy.quantization.params import QuantParams
from fcn_deploy.quantization.qdq import add_dequantized, add_pair, quantized_weights, range_of
from fcn_deploy.quantization.selection import chosen_convolutions
from fcn_deploy.quantization.tensors import data_input, in_place, passed_on_from, ranged_tensor

# Half of what 32 bits hold: the other half is for the products that the bias is added to, at most 255 * 127 a tap. In a
# channel of nearly zero weights, `correlated` rounding may add up to 255 a tap more; that is clipped.
_BIAS_LIMIT = 2**30
# The smallest positive float32.
_LEAST_BIAS_SCALE = 2.0**-149


def emit_onnxruntime(
    model: ir.Model,
    ranges: Mapping[str, Range],
    layers: Collection[str],
    scheme: CpuScheme | None = None,
    means: Means | None = None,
    uncorrected: Collection[str] = (),
) -> ir.Model:
    """Quantises layers in place.

    Args:
        model: As exported and simplified, with float32 `image` and `logits`.
        ranges: By tensor name, for the inputs and outputs of the layers.
        layers: Names of the layers to quantise, from `quantizable_layers`.
        scheme: Integer types and limits.
        means: By tensor name, the mean of each channel of what the layers read, float64 [C]: biases are corrected by
            them (see `fcn_deploy.quantization.bias`; padding is ignored). None or empty: biases stay what they are.
        uncorrected: Names of the layers whose biases stay what they are even so.

    Returns:
        The model.

    Raises:
        InputError: A layer is not in the graph or cannot be quantised; a tensor has no range; or `means` does not hold
            a tensor that a layer reads.
    """
    scheme = scheme or CpuScheme()
    graph = model.graph
    convs = chosen_convolutions(graph, layers)
    part = integer_part(
        graph,
        convs,
        params_of=lambda value: scheme.activations.of_range(range_of(in_place(value, ranges), ranges)),
        has_range=lambda value: ranged_tensor(in_place(value, ranges), ranges) is not None,
    )
    # Activations last: everything else looks at the tensors that nodes read before Q/DQ comes between.
    for conv in convs:
        known = None if conv.name in uncorrected else means
        _quantize_weights_and_bias(graph, conv, part.params[data_input(conv)].scale, scheme, known)
    for value, params in part.params.items():
        _quantize_activation(graph, value, params, part.nodes)
    for node in [node for node in graph if _quantized_unasked(node) and node not in convs]:
        _keep_float(graph, node)
    return model


def _quantize_weights_and_bias(
    graph: ir.Graph, conv: ir.Node, input_scale: NDArray[np.floating], scheme: CpuScheme, means: Means | None
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


def _quantize_activation(
    graph: ir.Graph, value: ir.Value, params: QuantParams, in_integers: Collection[ir.Node]
) -> None:
    uses = list(value.uses())
    producer = value.producer()
    dequantized = add_pair(graph, value, params)
    for use in uses:
        # A tensor made by an integer kernel exists as integers only. One made by a float kernel stays float for the
        # float kernels that read it.
        if producer in in_integers or use.node in in_integers:
            use.node.replace_input_with(use.idx, dequantized)
    if producer in in_integers and value.is_graph_output():
        graph.outputs[:] = [dequantized if output is value else output for output in graph.outputs]
        value.name, dequantized.name = f"{value.name}/float", value.name


def _quantized_unasked(node: ir.Node) -> bool:
    """Whether ONNX Runtime would do on integers what it should not, between DequantizeLinear and QuantizeLinear.

    It quantises the weights of float layers by itself, to 8 bits per tensor, which is wrong on CPUs without VNNI.
    """
    if node.op_type == "AveragePool":
        return counts_beyond_map(node)
    return node.op_type in ("Conv", "ConvTranspose", "Gemm")


def _keep_float(graph: ir.Graph, layer: ir.Node) -> None:
    """Keeps a node float that reads a dequantised tensor and whose output is quantised again.

    A Max of one tensor in between prevents ONNX Runtime from joining the three: its output is that tensor, and no
    optimiser removes it, as one would remove an Identity.
    """
    value = data_input(layer)
    # Also through a max-pool, for example: ONNX Runtime runs it on integers and dequantises after it.
    makers = [source.producer() for source in passed_on_from(value)]
    if not _is_quantized(layer.outputs[0]) or not any(node and node.op_type == DEQUANTIZE for node in makers):
        return
    copy = ir.node("Max", [value], name=f"{layer.name}/float")
    copy.outputs[0].name = copy.name
    copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
    graph.insert_before(layer, copy)
    layer.replace_input_with(0, copy.outputs[0])


def _is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear reads a tensor, at once or after what ONNX Runtime would do on integers instead."""
    readers = [use.node for use in value.uses()]
    return any(
        node.op_type == QUANTIZE or (node.op_type in SELECTING | {"Relu", "Clip"} and _is_quantized(node.outputs[0]))
        for node in readers
    )
