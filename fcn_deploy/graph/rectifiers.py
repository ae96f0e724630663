"""Rectifiers: ReLU and its like, which an integer kernel computes by the limits of its integers."""

from __future__ import annotations

import onnx_ir as ir

from fcn_deploy.graph.edit import constant_of, optional_input


def is_rectifier(node: ir.Node) -> bool:
    """Returns whether a node is a ReLU, or a Clip from 0 to a constant, such as ReLU6."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    lowest, highest = (constant_of(optional_input(node, index)) for index in (1, 2))
    return lowest is not None and highest is not None and bool(lowest == 0)


def sole_rectifier(value: ir.Value) -> ir.Node | None:
    """Returns the rectifier that reads a tensor, if nothing else does; None otherwise."""
    readers = list(value.uses())
    if len(readers) != 1 or value.is_graph_output() or not is_rectifier(readers[0].node):
        return None
    return readers[0].node
