"""What every rewrite of a graph needs: constants, inputs that may be left out, nodes in a place."""

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
    """Puts nodes in the place of a node of one output.

    The last of them makes the output, which keeps its name, type and shape. An output of the others that has no name is
    named after its node.

    Args:
        graph: The graph of `node`.
        node: Is removed.
        nodes: In order, one or more.
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
    """Returns an input that a node may leave out; None if it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def insert_after(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Puts nodes right after the node that makes a value, or at the start of the graph if the value is its input."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    else:
        graph.insert_before(graph[0], nodes)


def insert_cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
    """Puts a Cast right after the node that makes a value.

    Args:
        graph: The graph of the value.
        value: Of any type; its readers stay its readers.
        dtype: The type to cast to.
        name: Name of the node and of its output.

    Returns:
        The output of the Cast, with the shape of the value.
    """
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    output = node.outputs[0]
    output.name, output.type, output.shape = name, ir.TensorType(dtype), value.shape
    insert_after(graph, value, [node])
    return output


class NodeWriter:
    """Makes nodes and constants whose names begin with the name of one layer.

    It adds the constants to the graph; the caller puts `nodes` where they belong.

    Args:
        graph: The graph that gets the constants.
        name: Name of the layer.

    Attributes:
        nodes: The nodes so far, in order.
    """

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self.nodes: list[ir.Node] = []
        self._graph, self._name = graph, name

    def add(self, operator: str, *inputs: ir.Value | None, suffix: str | None = None, **attributes: object) -> ir.Value:
        """Makes a node of one output; node and output have the same name.

        Args:
            operator: An operator of ONNX.
            inputs: None for an input that is left out.
            suffix: What follows the layer's name; the operator if None. A constant of the layer must have another.
            attributes: The node's attributes.

        Returns:
            The output.
        """
        node = ir.node(operator, inputs, attributes, name=f"{self._name}/{suffix or operator}")  # type: ignore[arg-type]
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]

    def name_last_as_layer(self) -> None:
        """Gives the last node the name of the layer: it multiplies with the layer's weights."""
        self.nodes[-1].name = self._name

    def constant(self, suffix: str, array: NDArray[Any]) -> ir.Value:
        """Adds a constant to the graph and returns it."""
        return add_constant(self._graph, f"{self._name}/{suffix}", array)

    def sizes(self, suffix: str, *numbers: int) -> ir.Value:
        """Adds a constant of int64, such as a shape, to the graph and returns it."""
        return self.constant(suffix, np.array(numbers, np.int64))
