"""Scales of weights in two factors: one for all weights of a convolution, and one for each output channel after it.

TensorRT-RTX fuses scale, bias and ReLU into an INT8 convolution only if its weights have one scale. With one for each
output channel, the kernel writes FP32, and another one reads that. With scale[c] = whole * channel[c],

    conv(x, scale[c] * W[c]) + b[c]  =  channel[c] * (conv(x, whole * W[c]) + b[c] / channel[c])

so a Mul after the convolution takes over what differs by channel. The integers, and the results, are those of a scale
for each channel; the Mul becomes part of the kernel that quantises for the next layer. docs/tensorrt-graphs.md has what
a plan moves with and without it.

The convolution then writes its result / channel[c] in FP16, so the factors are chosen to keep that in FP16's range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import add_constant, constant_of, insert_after, optional_input
from fcn_deploy.quantization.bias import Means, bias_of, set_bias
from fcn_deploy.quantization.params import QuantParams, up_to_fp16
from fcn_deploy.quantization.qdq import add_dequantized, rounded_weights
from fcn_deploy.quantization.rounding import Rounding

_LARGEST, _SMALLEST = 65504.0, 2.0**-14  # of FP16, the latter with all of its 11 bits
# A result may be so much larger than its range before FP16 cannot hold it: ranges may be narrower than what comes.
_MARGIN = 16.0


@dataclass(frozen=True, eq=False)
class SplitScales:
    """The scales of the weights of one convolution.

    Attributes:
        whole: The factor for all weights, a number that FP16 holds.
        channels: The factor for each output channel, float32 [O], numbers that FP16 holds.
    """

    whole: np.float32
    channels: NDArray[np.float32]

    @property
    def params(self) -> QuantParams:
        """How the weights are quantised: the product of two FP16 numbers is exact in float32."""
        return QuantParams(self.channels * self.whole, "int8", -127, 127)

    @property
    def of_convolution(self) -> QuantParams:
        """How the convolution dequantises them."""
        return QuantParams(np.asarray(self.whole), "int8", -127, 127)


def split_scales(weights: NDArray[np.floating], bias: NDArray[np.floating] | None, largest: float) -> SplitScales:
    """Chooses scales that cover the weights.

    The largest factor of a channel is about `largest`, so that results / factor are about 1. A channel whose weights
    are nearly 0 would get a factor by which its results overflow: its scale is made larger than its weights need, up to
    1/4000 of the largest.

    Args:
        weights: [O, ...].
        bias: [O], or None.
        largest: The largest absolute value of the convolution's result, after its ReLU if it has one.
    """
    widest = np.abs(weights).reshape(len(weights), -1).max(axis=1, initial=0).astype(np.float64)
    most = float(widest.max(initial=0)) or 1.0
    # FP16 must hold `whole`, and lose no bits of whole * W: the graph has both, even if no kernel does.
    unit = max(largest, _SMALLEST, most / _LARGEST)
    unit = 2.0 ** np.floor(np.log2(min(unit, most / _SMALLEST / 2, _LARGEST / 2)))
    whole = up_to_fp16(np.asarray(most / 127 / unit, np.float32))
    least = _MARGIN * largest / _LARGEST
    by_bias = 0.0 if bias is None else np.abs(bias).astype(np.float64) * 2 / _LARGEST
    factors = np.maximum(widest / 127 / float(whole), np.maximum(least, by_bias))
    return SplitScales(np.float32(whole), up_to_fp16(np.maximum(factors, _SMALLEST).astype(np.float32)))


def can_split(conv: ir.Node) -> bool:
    """Returns whether the bias of a convolution can be divided: it has none, or a constant one."""
    return optional_input(conv, 2) is None or bias_of(conv) is not None


def quantize_split_weights(
    graph: ir.Graph, conv: ir.Node, largest: float, rounding: Rounding, means: Means | None
) -> NDArray[np.float32]:
    """Quantises the weights of a convolution; its result is to be multiplied by the factors of the channels.

    Args:
        graph: Holds the convolution.
        conv: It still reads the tensor that calibration saw; its bias is a constant, or it has none.
        largest: The largest absolute value of its result, after its ReLU if it has one.
        rounding: `nearest` or `correlated`.
        means: By which its bias is corrected; None or empty: it stays what it is.

    Returns:
        The factors, [O], for `multiply_channels`.
    """
    weights = constant_of(conv.inputs[1])
    assert weights is not None
    bias = bias_of(conv)
    scales = split_scales(weights, bias, largest)
    integers, shift = rounded_weights(conv, scales.params, rounding, means)
    name = f"{conv.name}.weight"
    conv.replace_input_with(1, add_dequantized(graph, conv, name, integers, scales.of_convolution))
    if bias is not None or shift.any():
        divided = ((0 if bias is None else bias) - shift) / scales.channels
        # Far below a step of the result, and FP16 would lose bits of it.
        divided[np.abs(divided) < _SMALLEST] = 0
        set_bias(conv, add_constant(graph, f"{conv.name}.bias/divided", divided.astype(np.float32)))
    return scales.channels


def multiply_channels(graph: ir.Graph, conv: ir.Node, channels: NDArray[np.float32]) -> None:
    """Puts a Mul after a convolution, whose output takes over the name of the convolution's, and so its range.

    Args:
        graph: Holds the convolution.
        conv: Its output may have readers of any kind, Q/DQ included.
        channels: [O].
    """
    result = conv.outputs[0]
    factors = add_constant(graph, f"{conv.name}.weight/channels", channels.reshape(1, -1, 1, 1))
    node = ir.node("Mul", [result, factors], name=f"{conv.name}/Mul")
    product = node.outputs[0]
    product.type, product.shape = result.type, result.shape
    insert_after(graph, result, [node])
    for use in list(result.uses()):
        if use.node is not node:
            use.node.replace_input_with(use.idx, product)
    for index, output in enumerate(graph.outputs):
        if output is result:
            graph.outputs[index] = product
    product.name, result.name = result.name, f"{result.name}/unscaled"
