"""Emission for TensorRT: explicit quantisation by Q/DQ pairs that its builder fuses into INT8 or FP8 kernels.

INT8 is symmetric, weights per output channel, activations per tensor, zero points 0, biases float: TensorRT has no
other. FP8 is E4M3 with one scale for each tensor. Both stand in the same places, where NVIDIA recommends Q/DQ pairs:
"Q/DQ Layer-Placement Recommendations" in
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html;
docs/tensorrt-graphs.md says what this means for the nets of this package. TensorRT-RTX fuses less: for it the scales of
output channels are Muls after the convolutions (`split_scales`), and pairs stand before max-pools.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import onnx_ir as ir

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import UsageError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.quantization.bias import Means
from fcn_deploy.quantization.float8 import Float8
from fcn_deploy.quantization.params import ScaleType, SymmetricInt8
from fcn_deploy.quantization.qdq import add_pair, quantize_weights, range_of
from fcn_deploy.quantization.rounding import Rounding, check_rounding
from fcn_deploy.quantization.selection import chosen_convolutions
from fcn_deploy.quantization.split_scales import can_split, multiply_channels, quantize_split_weights
from fcn_deploy.quantization.tensors import activation, data_input, passed_on_from

QuantizedNumbers = Literal["int8", "fp8"]


@dataclass(frozen=True)
class TensorRtScheme:
    """How to quantise for TensorRT.

    Attributes:
        scale_type: What scales are: a graph whose other tensors are FP16 or BF16 needs numbers that these hold. They
            are rounded up, so a range stays covered, and before the numbers are quantised, so nothing else is lost.
        rounding: How weights are rounded: `nearest` or `correlated`; see `fcn_deploy.quantization.rounding`. With
            8 bits the gain of `correlated` is too small to measure. FP8 is rounded to the nearest.
        numbers: What weights and activations become, `int8` or `fp8`.

        split_scales: Whether a Mul after each convolution takes over what differs from channel to channel in the scales
            of its weights. For INT8 with scales of FP16; a convolution whose bias the graph computes keeps its scales.
        before_pools: Whether the pair for what reads a max-pool stands before the pool. Then all of its readers read
            what was rounded, and nothing pools the float tensor beside the integers.

    Raises:
        InputError: The type of the scales is unknown.
        UsageError: The rounding or the numbers are unknown, or scales are to be split that are not FP16 numbers.
    """

    scale_type: ScaleType = "float32"
    rounding: Rounding = "nearest"
    numbers: QuantizedNumbers = "int8"
    split_scales: bool = False
    before_pools: bool = False

    def __post_init__(self) -> None:
        check_rounding(self.rounding)
        if self.numbers not in get_args(QuantizedNumbers):
            expected = " or ".join(get_args(QuantizedNumbers))
            raise UsageError("unknown numbers to quantise to", got=repr(self.numbers), expected=expected)
        if self.split_scales and (self.scale_type, self.numbers) != ("float16", "int8"):
            got = f"`split_scales` with {self.numbers} and {self.scale_type}"
            raise UsageError("scales are split for INT8 over FP16", got=got)

    @property
    def quantizer(self) -> SymmetricInt8 | Float8:
        """How weights and activations are quantised."""
        return Float8(self.scale_type) if self.numbers == "fp8" else SymmetricInt8(scale_type=self.scale_type)


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
        scheme: What the numbers become, which scales are allowed, and how weights are rounded.
        means: By tensor name, the mean of each channel of what the layers read, float64 [C]: biases are corrected by
            them (see `fcn_deploy.quantization.bias`; padding is ignored). None or empty: biases stay what they are.

    Returns:
        The model. Its float tensors are float32; a pass makes them FP16 later.

    Raises:
        InputError: A layer is not in the graph or cannot be quantised; a tensor has no range; or `means` does not hold
            a tensor that a layer reads.
    """
    scheme = scheme or TensorRtScheme()
    graph = model.graph
    convs = chosen_convolutions(graph, layers)
    readers: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node, index in [*((conv, 0) for conv in convs), *_residual_inputs(graph, set(convs))]:
        if scheme.before_pools:
            node, index = _before_pools(node, index)
        value = node.inputs[index]
        assert value is not None
        readers.setdefault(value, []).append((node, index))
    factors = {}
    for conv in convs:
        if scheme.split_scales and can_split(conv):
            found = range_of(activation(conv), ranges)
            factors[conv] = quantize_split_weights(graph, conv, max(-found.lo, found.hi), scheme.rounding, means)
        else:
            quantize_weights(graph, conv, scheme.quantizer, scheme.rounding, means)
    for value, uses in readers.items():
        dequantized = add_pair(graph, value, scheme.quantizer.of_range(range_of(value, ranges)))
        for node, index in uses:
            # Other readers stay on the float tensor: a score layer reads the output of the pool, not what was rounded.
            node.replace_input_with(index, dequantized)
    for conv, channels in factors.items():  # last: what they multiply is no tensor that has a range
        multiply_channels(graph, conv, channels)
    return model


def _before_pools(node: ir.Node, index: int) -> tuple[ir.Node, int]:
    """Returns the max-pool whose result a node reads, or the first of several, and its input; else the node's own."""
    value = node.inputs[index]
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "MaxPool" or len(producer.outputs) > 1:
        return node, index
    return _before_pools(producer, 0)


def _residual_inputs(graph: ir.Graph, convs: set[ir.Node]) -> list[tuple[ir.Node, int]]:
    """Returns the inputs of residual sums that must be quantised, so that the sum becomes part of a convolution.

    TensorRT computes Conv, Add and ReLU in one kernel, whose other input has the type of its output. The output is INT8
    if a quantised convolution reads it; so the tensor that skips the block must be INT8 too. The convolution's own
    result gets no Q/DQ pair, which would separate the convolution from the sum.
    """
    read = {value for conv in convs for value in passed_on_from(data_input(conv))}
    order = {node: position for position, node in enumerate(graph)}
    found = []
    for node in graph:
        if node.op_type != "Add" or activation(node) not in read:
            continue
        own = [index for index, value in enumerate(node.inputs) if value is not None and _fuses(value, convs)]
        if own and all(constant_of(value) is None for value in node.inputs):
            # Of two convolutions, the later one computes the sum: the result of the other exists by then.
            last = max(own, key=lambda index: order[node.inputs[index].producer()])  # type: ignore[index, union-attr]
            found.append((node, 1 - last))
    return found


def _fuses(value: ir.Value, convs: set[ir.Node]) -> bool:
    """Whether a sum can become part of the node that makes `value`: a quantised convolution with no other reader."""
    return value.producer() in convs and len(list(value.uses())) == 1 and not value.is_graph_output()
