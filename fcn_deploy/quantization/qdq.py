"""Q/DQ nodes: how they are put into a graph, whatever the target's integers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import add_constant
from fcn_deploy.quantization.tensors import ranged_tensor


def range_of(value: ir.Value, ranges: Mapping[str, Range]) -> Range:
    """Returns the range of a tensor, or of the one it was passed on from.

    Raises:
        InputError: There is none.
    """
    source = ranged_tensor(value, ranges)
    if source is None:
        raise InputError(
            f"no range for tensor {value.name}",
            got=f"ranges of {len(ranges)} other tensors",
            fix="calibrate this model again",
        )
    return ranges[str(source.name)]


def add_pair(graph: ir.Graph, value: ir.Value, scale: np.float32, zero_point: np.integer[Any]) -> ir.Value:
    """Puts QuantizeLinear and DequantizeLinear behind a tensor; who reads it from there is the caller's choice.

    Args:
        graph: Holds the tensor.
        value: float32.
        scale: Of the whole tensor.
        zero_point: Of the integer type to quantise to.

    Returns:
        The dequantised tensor, float32.
    """
    parameters = [
        add_constant(graph, f"{value.name}/scale", np.array(scale, np.float32)),
        add_constant(graph, f"{value.name}/zero_point", np.array(zero_point)),
    ]
    quantize = ir.node("QuantizeLinear", [value, *parameters], name=f"{value.name}/QuantizeLinear")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters], name=f"{value.name}/DequantizeLinear")
    for node, dtype in ((quantize, ir.DataType.from_numpy(zero_point.dtype)), (dequantize, ir.DataType.FLOAT)):
        node.outputs[0].name = node.name
        node.outputs[0].type = ir.TensorType(dtype)
        node.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, [quantize, dequantize])
    else:
        graph.insert_before(graph[0], [quantize, dequantize])
    return dequantize.outputs[0]


def add_dequantized(
    graph: ir.Graph, before: ir.Node, name: str, integers: NDArray[np.int8 | np.int32], scale: NDArray[np.float32]
) -> ir.Value:
    """Puts integer constants and a DequantizeLinear in front of a node.

    Args:
        graph: Holds the node.
        before: The node that is to read them.
        name: What the constants are called after.
        integers: [channels, ...].
        scale: float32 [channels].

    Returns:
        The dequantised tensor, float32, of the shape of `integers`.
    """
    inputs = [
        add_constant(graph, f"{name}/quantized", integers),
        add_constant(graph, f"{name}/scale", scale),
        add_constant(graph, f"{name}/zero_point", np.zeros(len(scale), integers.dtype)),
    ]
    node = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{name}/DequantizeLinear")
    output = node.outputs[0]
    output.name = node.name
    output.type = ir.TensorType(ir.DataType.FLOAT)
    output.shape = ir.Shape(integers.shape)
    graph.insert_before(before, node)
    return output
