"""Which layers of a graph can run in INT8, and which of them do by default."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.ops import CONVOLUTIONS
from fcn_deploy.graph.transposed import read_transposed, reason_against, reason_against_subpixels
from fcn_deploy.quantization.tensors import data_input, passed_on_from


def convolution_names(graph: ir.Graph) -> list[str]:
    """Returns the names of all convolutions, transposed or not: the layers whose precision a sidecar states."""
    return [str(node.name) for node in graph if node.op_type in CONVOLUTIONS]


def quantizable_layers(graph: ir.Graph, *, transposed: bool = False) -> list[str]:
    """Returns the names of the layers that can run in INT8: two-dimensional convolutions with constant weights.

    One-dimensional convolutions, as in attention over channels, are too small to gain from INT8.

    Args:
        graph: As exported and simplified.
        transposed: Whether transposed convolutions can, as convolutions with subpixels in their channels. Those that
            interpolate linearly cannot: they are no layers in an engine. Nor can those that upsample scores, whose
            rounding changes labels.
    """
    return [node.name or "" for node in _quantizable(graph, transposed)]


def transposed_layers(graph: ir.Graph) -> list[str]:
    """Returns the names of the transposed convolutions among the layers that can run in INT8."""
    return [str(node.name) for node in _quantizable(graph, transposed=True) if node.op_type == "ConvTranspose"]


def quantizable_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Returns the tensors that the layers of `quantizable_layers` read, each once, in the order of the layers."""
    return list(dict.fromkeys(data_input(node) for node in _quantizable(graph)))


def float_by_default(graph: ir.Graph, *, transposed: bool = False) -> set[str]:
    """Returns the names of the layers that stay float by default.

    These are the convolutions that read the image, whose three channels make INT8 slower than float, and the score
    layers, whose rounding changes labels: the convolutions that no other convolution follows.

    Args:
        graph: As exported and simplified.
        transposed: Whether transposed convolutions can run in INT8.
    """
    able = _quantizable(graph, transposed)
    convs = {node for node in graph if node.op_type == "Conv" or node in able}
    first = {node for node in convs if _reads_image(graph, node)}
    return {str(node.name) for node in first | _last(graph, convs)}


def int8_layers(graph: ir.Graph, asked: Collection[str] | None, *, transposed: bool = False) -> list[str]:
    """Returns the layers to quantise, in graph order.

    Args:
        graph: As exported and simplified.
        asked: Names from `quantizable_layers`; None for all except `float_by_default`. If that leaves none, the score
            layers; of a net of one layer, that one.
        transposed: Whether transposed convolutions can run in INT8.

    Raises:
        InputError: A layer that was asked for cannot be quantised.
    """
    known = quantizable_layers(graph, transposed=transposed)
    if asked is None:
        kept = float_by_default(graph, transposed=transposed)
        first = {str(node.name) for node in graph if node.name in known and _reads_image(graph, node)}
        inner, scores = ([name for name in known if name not in left_out] for left_out in (kept, first))
        return inner or scores or known
    unknown = sorted(set(asked) - set(known))
    if unknown:
        elsewhere = set(transposed_layers(graph)).intersection(unknown)
        fix = f"run {', '.join(sorted(elsewhere))} in float: only engines for ONNX Runtime and OpenVINO run it in INT8"
        raise _not_quantizable(unknown, known, fix if elsewhere else None)
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


def _quantizable(graph: ir.Graph, transposed: bool = False) -> list[ir.Node]:
    weights = ((node, constant_of(node.inputs[1])) for node in graph if node.op_type in CONVOLUTIONS)
    layers = [node for node, array in weights if array is not None and array.ndim == 4]
    return [node for node in layers if node.op_type == "Conv" or (transposed and _has_subpixels(graph, node))]


def _has_subpixels(graph: ir.Graph, node: ir.Node) -> bool:
    if reason_against(node) is not None or _upsamples_scores(graph, node):
        return False
    layer = read_transposed(node)
    return not layer.is_bilinear and not layer.separated and reason_against_subpixels(layer) is None


def _not_quantizable(unknown: list[str], known: list[str], fix: str | None = None) -> InputError:
    return InputError("layers that cannot be quantised", got=", ".join(unknown), expected=", ".join(known), fix=fix)


def _reads_image(graph: ir.Graph, node: ir.Node) -> bool:
    return graph.inputs[0] in passed_on_from(data_input(node))


def _upsamples_scores(graph: ir.Graph, node: ir.Node) -> bool:
    """Whether a transposed convolution makes scores of scores, as in FCNs."""
    logits, weights = graph.outputs[0].shape, constant_of(node.inputs[1])
    channels = logits[1] if logits is not None and logits.rank() == 4 else None
    return weights is not None and weights.shape[0] == weights.shape[1] == channels


def _last(graph: ir.Graph, convs: set[ir.Node]) -> set[ir.Node]:
    """Returns the convolutions that no other convolution follows."""
    followed: set[ir.Node] = set()  # nodes that a convolution follows, at once or later
    for node in reversed(graph):
        readers = {use.node for value in node.outputs for use in value.uses()}
        if any(reader in convs or reader in followed for reader in readers):
            followed.add(node)
    return convs - followed
