"""Which tensors of a graph have a range of their own, and from which tensor the others take theirs."""

from __future__ import annotations

from collections.abc import Container, Iterator

import onnx_ir as ir

from fcn_deploy.graph.edit import constant_of, optional_input
from fcn_deploy.graph.ops import MEASURING, SELECTING
from fcn_deploy.graph.rectifiers import sole_rectifier

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def data_input(node: ir.Node) -> ir.Value:
    """Returns the tensor that a layer computes on: its first input."""
    value = node.inputs[0]
    assert value is not None
    return value


def activation(node: ir.Node) -> ir.Value:
    """Returns the output of the ReLU or ReLU6 after a layer, if nothing else reads the layer; else its own output."""
    output = node.outputs[0]
    while (rectifier := sole_rectifier(output)) is not None:  # more than one, if the net rectifies twice
        output = rectifier.outputs[0]
    return output


def observed_tensors(graph: ir.Graph) -> list[ir.Value]:
    """Returns the tensors that calibration keeps histograms of.

    These are the graph's float inputs and all float tensors computed from them, except the outputs of nodes that pass
    values on (a max-pool has the range of its input) and what only a ReLU reads (the two run as one kernel). Sizes, and
    what is computed from them, do not count.
    """
    values = [value for value in graph.inputs if value.dtype in _FLOATS]
    reached = set(values)
    for node in graph:
        if not any(value in reached for value in node.inputs):
            continue
        output = node.outputs[0]
        if output.dtype is not None and output.dtype not in _FLOATS:
            if node.op_type not in MEASURING:  # numbers of another type, of which floats may be made again
                reached.add(output)
            continue
        reached.update(node.outputs if node.op_type == "Split" else (output,))
        if not _passes_on(node) and activation(node) is output:
            values.append(output)
    return values


def _passes_on(node: ir.Node) -> bool:
    """Whether a node's outputs have values of its first input only, and 0, which every range holds."""
    if node.op_type != "Pad":
        return node.op_type in SELECTING or node.op_type == "Split"
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    value = optional_input(node, 2)
    filled = constant_of(value)
    return value is None or (filled is not None and not filled.any())


def ranged_tensor(value: ir.Value, known: Container[str | None]) -> ir.Value | None:
    """Returns the tensor whose range `value` has: itself, or one that it was passed on from. None if none is known."""
    return next((source for source in passed_on_from(value) if source.name in known), None)


def passed_on_from(value: ir.Value) -> Iterator[ir.Value]:
    """Yields a tensor, the tensor that it was passed on from, and so on towards the graph's inputs."""
    current: ir.Value | None = value
    while current is not None:
        yield current
        producer = current.producer()
        current = producer.inputs[0] if producer is not None and _passes_on(producer) else None


def in_place(value: ir.Value, known: Container[str | None]) -> ir.Value:
    """Returns the tensor itself; of subpixels that have no range, the tensor that holds them in their places.

    Args:
        value: In a graph whose transposed convolutions have become convolutions of subpixels, which calibration did not
            see.
        known: Names of the tensors that have a range.
    """
    readers = [use.node for use in value.uses()]
    if ranged_tensor(value, known) is None and len(readers) == 1 and readers[0].op_type in ("DepthToSpace", "Slice"):
        return in_place(readers[0].outputs[0], known)
    return value
