"""Emission for OpenVINO: puts Q/DQ pairs into a graph, as its low precision transformations look for them.

Activations are asymmetric uint8 per tensor, weights symmetric int8 per output channel, biases float. OpenVINO reads a
pair as FakeQuantize, moves the dequantisation past what computes on integers as well as on floats, and fuses the rest
into the convolutions
(https://docs.openvino.ai/2025/documentation/openvino-extensibility/openvino-plugin-library/advanced-guides/low-precision-transformations.html).
A pair stands where a quantised convolution reads, and before what only moves values on the way there (max-pools, crops,
pixel shuffle), and nowhere else: the output of one that a float layer reads needs no rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import onnx_ir as ir

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.graph.rectifiers import is_rectifier
from fcn_deploy.quantization.bias import Means
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.qdq import add_pair, quantize_weights, range_of
from fcn_deploy.quantization.selection import chosen_convolutions
from fcn_deploy.quantization.tensors import data_input, in_place

_MOVING = frozenset({"MaxPool", "DepthToSpace", "Slice"})


def emit_openvino(
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
        ranges: By tensor name, for the inputs of the layers.
        layers: Names of the layers to quantise, from `quantizable_layers`.
        scheme: Integer types and limits; 8-bit weights if None.
        means: By tensor name, the mean of each channel of what the layers read, float64 [C]: biases are corrected by
            them (see `fcn_deploy.quantization.bias`; padding is ignored). None or empty: biases stay what they are.
        uncorrected: Names of the layers whose biases stay what they are even so.

    Returns:
        The model.

    Raises:
        InputError: A layer is not in the graph or cannot be quantised; a tensor has no range; or `means` does not hold
            a tensor that a layer reads.
    """
    scheme = scheme or CpuScheme(127)
    graph = model.graph
    convs = chosen_convolutions(graph, layers)
    for conv in convs:
        known = None if conv.name in uncorrected else means
        quantize_weights(graph, conv, scheme.weights, scheme.rounding, known)
    movers = {mover for conv in convs for mover in _movers_before(conv)}
    on_integers = {*convs, *movers}
    read = {data_input(node) for node in on_integers}
    params = {value: scheme.activations.of_range(range_of(in_place(value, ranges), ranges)) for value in read}
    made = _made_by_integers(graph, set(convs), movers)
    for value in _in_order(graph, read):
        uses = list(value.uses())
        dequantized = add_pair(graph, value, params[value])
        for use in uses:
            # What an integer kernel makes exists as integers only. What a float kernel makes stays float for the float
            # kernels that read it.
            if value in made or use.node in on_integers:
                use.node.replace_input_with(use.idx, dequantized)
    return model


def _movers_before(conv: ir.Node) -> Iterator[ir.Node]:
    """Yields what moves values right before a convolution and nothing else: rounded before, it runs on integers."""
    producer = data_input(conv).producer()
    while producer is not None and producer.op_type in _MOVING:
        yield producer
        producer = data_input(producer).producer()


def _in_order(graph: ir.Graph, values: Collection[ir.Value]) -> list[ir.Value]:
    ordered = [*graph.inputs, *(node.outputs[0] for node in graph)]
    return [value for value in ordered if value in values]


def _made_by_integers(graph: ir.Graph, convs: set[ir.Node], movers: set[ir.Node]) -> set[ir.Value]:
    """Returns what integer kernels make: quantised convolutions, sums and rectifiers fused into them, and movers.

    Args:
        graph: With no pairs yet between its layers.
        convs: The quantised convolutions.
        movers: What only moves values, on integers.
    """
    found: set[ir.Value] = set()
    for node in graph:
        fused = is_rectifier(node) or node.op_type == "Add"
        if node in convs or node in movers or (fused and any(value in found for value in node.inputs)):
            found.update(node.outputs)
    return found
