"""Which layers of a graph can run in INT8, and which of them do by default."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.quantization.tensors import data_input, passed_on_from


def quantizable_layers(graph: ir.Graph) -> list[str]:
    """Returns the names of the layers that can run in INT8: two-dimensional convolutions with constant weights.

    One-dimensional convolutions, as in attention over channels, are too small to gain from INT8.
    """
    return [node.name or "" for node in _quantizable(graph)]


def quantizable_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Returns the tensors that the layers of `quantizable_layers` read, each once, in the order of the layers."""
    return list(dict.fromkeys(data_input(node) for node in _quantizable(graph)))


def float_by_default(graph: ir.Graph) -> set[str]:
    """Returns the names of the layers that stay float by default.

    These are the convolutions that read the image, whose three channels make INT8 slower than float, and the score
    layers, whose rounding changes labels: the convolutions that no other convolution follows.
    """
    image = graph.inputs[0]
    convs = [node for node in graph if node.op_type == "Conv"]
    first = {node for node in convs if image in passed_on_from(data_input(node))}
    return {str(node.name) for node in first | _last(graph, convs)}


def int8_layers(graph: ir.Graph, asked: Collection[str] | None) -> list[str]:
    """Returns the layers to quantise, in graph order.

    Args:
        graph: As exported and simplified.
        asked: Names from `quantizable_layers`; None for all except `float_by_default`.

    Raises:
        InputError: A layer that was asked for cannot be quantised.
    """
    known = quantizable_layers(graph)
    if asked is None:
        kept = float_by_default(graph)
        return [name for name in known if name not in kept]
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise _not_quantizable(unknown, known)
    return [name for name in known if name in asked]


def chosen_convolutions(graph: ir.Graph, layers: Collection[str]) -> list[ir.Node]:
    """Returns the convolutions of the given names, in graph order.

    Args:
        graph: As exported and simplified.
        layers: Names from `quantizable_layers`.

    Raises:
        InputError: Layers share a name, or one is not in the graph or cannot be quantised.
    """
    known = quantizable_layers(graph)
    if len(set(known)) < len(known) or "" in known:
        raise InputError(
            "layers cannot be told apart", got=f"names {', '.join(known)}", expected="a name of its own for each"
        )
    unknown = sorted(set(layers) - set(known))
    if unknown:
        raise _not_quantizable(unknown, known)
    return [node for node in graph if node.op_type == "Conv" and node.name in layers]


def _quantizable(graph: ir.Graph) -> list[ir.Node]:
    weights = ((node, constant_of(node.inputs[1])) for node in graph if node.op_type == "Conv")
    return [node for node, array in weights if array is not None and array.ndim == 4]


def _not_quantizable(unknown: list[str], known: list[str]) -> InputError:
    return InputError("layers that cannot be quantised", got=", ".join(unknown), expected=", ".join(known))


def _last(graph: ir.Graph, convs: list[ir.Node]) -> set[ir.Node]:
    """Returns the convolutions that no other convolution follows."""
    followed: set[ir.Node] = set()  # nodes that a convolution follows, at once or later
    for node in reversed(graph):
        readers = {use.node for value in node.outputs for use in value.uses()}
        if any(reader.op_type == "Conv" or reader in followed for reader in readers):
            followed.add(node)
    return set(convs) - followed
