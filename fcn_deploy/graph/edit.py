"""The few things every rewrite of a graph needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def add_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Adds an initialiser to a graph and returns it."""
    value = ir.Value(
        name=name,
        const_value=ir.tensor(array, name=name),
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    graph.register_initializer(value)
    return value


def replace_node(graph: ir.Graph, node: ir.Node, nodes: Sequence[ir.Node]) -> None:
    """Puts nodes in the place of one of a single output, which the last of them makes, under its name.

    What the others make is called after them where it has no name.
    """
    old, new = node.outputs[0], nodes[-1].outputs[0]
    for each in nodes[:-1]:
        each.outputs[0].name = each.outputs[0].name or f"{each.name}/output"
    new.type, new.shape = old.type, old.shape
    graph.insert_before(node, nodes)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name, old.name = old.name, None


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """Returns the array of an initialiser or constant; None for anything else."""
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """Returns an input that a node may leave out; None where it does."""
    return node.inputs[index] if index < len(node.inputs) else None


def insert_after(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Puts nodes right after what makes a value, or at the start of the graph if the value is an input of it."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    else:
        graph.insert_before(graph[0], nodes)


class NodeWriter:
    """Makes nodes and constants whose names begin with that of one layer; `nodes` holds them in order.

    Args:
        graph: What the constants are added to; where the nodes go is the caller's business.
        name: Of the layer.
    """

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self.nodes: list[ir.Node] = []
        self._graph, self._name = graph, name

    def add(self, operator: str, *inputs: ir.Value | None, suffix: str | None = None, **attributes: object) -> ir.Value:
        """Makes a node of one output, which has the name of the node.

        Args:
            operator: Of ONNX.
            inputs: None for one that is left out.
            suffix: What follows the layer's name; the operator where None.
            attributes: Of the node.

        Returns:
            The output.
        """
        node = ir.node(operator, inputs, attributes, name=f"{self._name}/{suffix or operator}")  # type: ignore[arg-type]
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, suffix: str, array: NDArray[Any]) -> ir.Value:
        """Adds a constant to the graph."""
        return add_constant(self._graph, f"{self._name}/{suffix}", array)

    def sizes(self, suffix: str, *numbers: int) -> ir.Value:
        """Adds a constant of int64 to the graph, such as a shape."""
        return self.constant(suffix, np.array(numbers, np.int64))
