"""Whole divisions of sizes: those of a number that may be negative are written so that ONNX computes them as Python.

`-(-height // 3)`, which rounds up, divides a negative number. Python rounds down; ONNX's Div, which torch writes for
`//`, rounds towards zero. Without the remainder there is nothing to round.
"""

from __future__ import annotations

import operator

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true


def round_down(program: torch.export.ExportedProgram) -> None:
    """Takes the remainder away before each division of a number that may be negative.

    Args:
        program: What torch.export gives; changed in place.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is operator.floordiv and not all(map(_is_positive, node.args)):
            number, divisor = node.args
            with graph.inserting_before(node):
                # Its sign is the divisor's, in Python as in ONNX.
                rest = _call(graph, operator.mod, number, divisor)
                node.args = _call(graph, operator.sub, number, rest), divisor
    program.graph_module.recompile()


def _call(graph: fx.Graph, function: object, *arguments: fx.node.Argument) -> fx.Node:
    node = graph.call_function(function, arguments)  # type: ignore[arg-type]
    node.meta["val"] = function(*map(_value, arguments))  # type: ignore[operator]
    return node


def _value(argument: fx.node.Argument) -> object:
    return argument.meta["val"] if isinstance(argument, fx.Node) else argument


def _is_positive(argument: fx.node.Argument) -> bool:
    return statically_known_true(_value(argument) >= 0)  # type: ignore[operator]
