"""Q/DQ nodes, and quantised weights: how they come into a graph, for every target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import add_constant, constant_of, insert_after
from fcn_deploy.graph.ops import DEQUANTIZE, QUANTIZE
from fcn_deploy.quantization.bias import Means, bias_of, input_mean, mean_shift, set_bias
from fcn_deploy.quantization.float8 import Float8, Float8Params
from fcn_deploy.quantization.params import QuantParams, SymmetricInt8
from fcn_deploy.quantization.rounding import Rounding, round_weights
from fcn_deploy.quantization.tensors import ranged_tensor


def range_of(value: ir.Value, ranges: Mapping[str, Range]) -> Range:
    """Returns the range of a tensor, or of the tensor whose values it holds.

    Raises:
        InputError: Neither has a range.
    """
    source = ranged_tensor(value, ranges)
    if source is None:
        raise InputError(
            f"no range for tensor {value.name}",
            got=f"ranges of {len(ranges)} other tensors",
            fix="calibrate this model again",
        )
    return ranges[str(source.name)]


def add_pair(graph: ir.Graph, value: ir.Value, params: QuantParams | Float8Params) -> ir.Value:
    """Puts QuantizeLinear and DequantizeLinear after a tensor; the caller decides which nodes read their output.

    Args:
        graph: Holds the tensor.
        value: float32.
        params: One scale for the whole tensor.

    Returns:
        The dequantised tensor, float32.
    """
    constants = [
        add_constant(graph, f"{value.name}/scale", np.asarray(params.scale, np.float32)),
        add_constant(graph, f"{value.name}/zero_point", np.array(params.zero_point, params.number)),
    ]
    quantize = ir.node(QUANTIZE, [value, *constants], name=f"{value.name}/{QUANTIZE}")
    dequantize = ir.node(DEQUANTIZE, [quantize.outputs[0], *constants], name=f"{value.name}/{DEQUANTIZE}")
    for node, dtype in ((quantize, ir.DataType.from_numpy(params.number)), (dequantize, ir.DataType.FLOAT)):
        node.outputs[0].name = node.name
        node.outputs[0].type = ir.TensorType(dtype)
        node.outputs[0].shape = value.shape
    insert_after(graph, value, [quantize, dequantize])
    return dequantize.outputs[0]


def quantize_weights(
    graph: ir.Graph, conv: ir.Node, quantizer: SymmetricInt8 | Float8, rounding: Rounding, means: Means | None
) -> None:
    """Quantises the weights of a convolution for a target that takes biases in float.

    Args:
        graph: Holds the convolution.
        conv: It still reads the tensor that calibration saw.
        quantizer: Of the weights: integers with one scale per output channel, or E4M3 with one for all.
        rounding: `nearest` or `correlated`; E4M3 is always rounded to the nearest.
        means: By which its bias is corrected; None or empty: it stays what it is.
    """
    weights = constant_of(conv.inputs[1])
    assert weights is not None
    params: QuantParams | Float8Params
    if isinstance(quantizer, Float8):
        params = quantizer.of_weights(weights)
        rounded: NDArray[np.number] = params.quantize(weights)
        shift = mean_shift(weights, rounded, params.scale, input_mean(conv, weights, means))
    else:
        params = quantizer.of_weights(weights)
        rounded, shift = rounded_weights(conv, params, rounding, means)
    conv.replace_input_with(1, add_dequantized(graph, conv, f"{conv.name}.weight", rounded, params))
    if shift.any():
        bias = bias_of(conv)
        corrected = (0 if bias is None else bias) - shift
        set_bias(conv, add_constant(graph, f"{conv.name}.bias/corrected", corrected.astype(np.float32)))


def rounded_weights(
    conv: ir.Node, params: QuantParams, rounding: Rounding, means: Means | None
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Returns the integers of the weights of a convolution, and by how much rounding them shifts its mean result.

    Args:
        conv: It still reads the tensor that calibration saw, and its weights are floats.
        params: Of the weights, one scale per output channel.
        rounding: `nearest` or `correlated`.
        means: Of what it reads; None or empty: nothing is shifted.

    Returns:
        The integers, and the shift, float64 [O]; subtract it from the bias.
    """
    weights = constant_of(conv.inputs[1])
    assert weights is not None
    rounded = quantized_weights(conv, weights, params, rounding)
    return rounded, mean_shift(weights, rounded, params.scale, input_mean(conv, weights, means))


def quantized_weights(
    conv: ir.Node, weights: NDArray[np.floating], params: QuantParams, rounding: Rounding
) -> NDArray[np.integer]:
    """Returns the integers of the weights of a convolution.

    Args:
        conv: The convolution, for the distance between its taps.
        weights: Of the convolution, [O, C / groups, *kernel].
        params: One scale per output channel.
        rounding: `nearest` or `correlated`; see `fcn_deploy.quantization.rounding`.
    """
    dilations = conv.attributes.get_ints("dilations", ())
    return params.quantize(weights, lambda steps: round_weights(steps, rounding, dilations))


def add_dequantized(
    graph: ir.Graph, before: ir.Node, name: str, numbers: NDArray[Any], params: QuantParams | Float8Params
) -> ir.Value:
    """Puts quantised constants and a DequantizeLinear in front of a node.

    Args:
        graph: Holds the node.
        before: The node that will read them.
        name: What the names of the constants begin with.
        numbers: [channels, ...], quantised by `params`.
        params: One scale per channel or one for all; one zero point for all.

    Returns:
        The dequantised tensor, float32, of the shape of `numbers`.
    """
    inputs = [
        add_constant(graph, f"{name}/quantized", numbers),
        add_constant(graph, f"{name}/scale", np.asarray(params.scale, np.float32)),
        add_constant(graph, f"{name}/zero_point", np.full(params.scale.shape, params.zero_point, params.number)),
    ]
    node = ir.node(DEQUANTIZE, inputs, {"axis": 0} if params.scale.ndim else {}, name=f"{name}/{DEQUANTIZE}")
    output = node.outputs[0]
    output.name = node.name
    output.type = ir.TensorType(ir.DataType.FLOAT)
    output.shape = ir.Shape(numbers.shape)
    graph.insert_before(before, node)
    return output
