"""Which tensors of a graph have a range of their own, and whose range the others share."""

from __future__ import annotations

from collections.abc import Container, Iterator

import onnx_ir as ir

from fcn_deploy.graph.edit import constant_of

# Their output holds values of their first input, and zero, which every range has; so a range of the input is one of the
# output.
_PASSING = frozenset(
    {"MaxPool", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Pad", "Gather"}
)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def data_input(node: ir.Node) -> ir.Value:
    """Returns what a layer computes on: its first input."""
    value = node.inputs[0]
    assert value is not None
    return value


def activation(node: ir.Node) -> ir.Value:
    """Returns the output of a layer behind its ReLU or ReLU6, if that is all that reads the layer."""
    output = node.outputs[0]
    readers = [use.node for use in output.uses()]
    if len(readers) == 1 and is_rectifier(readers[0]) and not output.is_graph_output():
        return readers[0].outputs[0]
    return output


def is_rectifier(node: ir.Node) -> bool:
    """Returns whether a node is a ReLU, or a Clip from 0 to a constant such as ReLU6."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    lowest, highest = (constant_of(value) for value in (*node.inputs[1:], None, None)[:2])
    return lowest is not None and highest is not None and lowest == 0


def observed_tensors(graph: ir.Graph) -> list[ir.Value]:
    """Returns the tensors that calibration keeps histograms of.

    Those are the graph's float inputs and whatever is computed from them, less what passes values on (a max-pool shares
    the range of its input) and less what only a ReLU reads (the two run as one).
    """
    values = [value for value in graph.inputs if value.dtype in _FLOATS]
    reached = set(values)
    for node in graph:
        if not any(value in reached for value in node.inputs):
            continue
        output = node.outputs[0]
        if output.dtype is not None and output.dtype not in _FLOATS:
            continue
        reached.add(output)
        if not _passes_on(node) and activation(node) is output:
            values.append(output)
    return values


def _passes_on(node: ir.Node) -> bool:
    if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        filled = constant_of(value)
        return value is None or (filled is not None and not filled.any())
    return node.op_type in _PASSING


def ranged_tensor(value: ir.Value, known: Container[str | None]) -> ir.Value | None:
    """Returns the tensor whose range `value` shares: itself, or what it was passed on from; None if none is known."""
    return next((source for source in passed_on_from(value) if source.name in known), None)


def passed_on_from(value: ir.Value) -> Iterator[ir.Value]:
    """Yields a tensor, what it was passed on from, and so on up."""
    current: ir.Value | None = value
    while current is not None:
        yield current
        producer = current.producer()
        current = producer.inputs[0] if producer is not None and _passes_on(producer) else None
