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
