"""Pads the classes of score maps to a number of channels that GPU kernels take."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import add_constant, constant_of, optional_input
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

_SPATIAL = {2, 3}
_FUSED = ("Conv", "ConvTranspose")
_MULTIPLE = 8


class PadClasses(Rewrite):
    """Pads the channels of the layers that make logits to a multiple of 8, with classes that never win.

    What:
        Looks at the ArgMax at the end of a graph, and back over crops, sums and transposed convolutions to the
        convolutions that make scores. Each of them gets channels whose weights are 0; in the last, their bias is the
        lowest number there is.

    Why:
        Kernels for tensor cores want channels in eights. The builder of TensorRT-RTX pads scores before each transposed
        convolution, and crops them after it: a copy of its own each time, the last at the size of the image.

    Before -> after:
        Conv (11) -> ConvTranspose (11) -> ArgMax -> labels
        Conv (16) -> ConvTranspose (16) -> ArgMax -> labels, which are below 11

    Source:
        Measured: docs/tensorrt-graphs.md.

    Args:
        lowest: The lowest number of the type that logits will have. If all logits of a pixel are minus infinity, as
            after an overflow, the label is the number of classes.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, lowest: float) -> None:
        self._lowest = lowest

    def call(self, model: ir.Model) -> RewriteResult:
        """Pads the layers before the first output."""
        argmax = _argmax(model.graph)
        logits = argmax.inputs[0] if argmax is not None else None
        if argmax is None or logits is None:
            return RewriteResult(model, False, (Declined("the output is not the ArgMax of channels"),))
        scores = _Scores()
        if not scores.collect(logits, argmax):
            reason = "more than convolutions, sums and crops makes the logits, or something else reads them"
            return RewriteResult(model, False, (Declined(reason, argmax.name),))
        more = -scores.classes % _MULTIPLE
        if more == 0:
            reason = f"{scores.classes} channels are a multiple of {_MULTIPLE}"
            return RewriteResult(model, False, (Declined(reason, argmax.name),))
        last = _last(logits)
        for node, reads_scores in scores.layers.items():
            _pad(model.graph, node, more, reads_scores, self._lowest if node is last else 0.0)
        for value in scores.values:
            value.shape = None
        return RewriteResult(model, True)


class _Scores:
    """The layers that make logits.

    Attributes:
        classes: Channels of all of them; 0 before the first is found.
        layers: The convolutions, and whether what they read is padded too.
        values: The tensors that are padded.
    """

    def __init__(self) -> None:
        self.classes = 0
        self.layers: dict[ir.Node, bool] = {}
        self.values: list[ir.Value] = []

    def collect(self, value: ir.Value, reader: ir.Node) -> bool:
        """Adds what makes a tensor that only `reader` reads; returns whether all of it can be padded."""
        node = value.producer()
        if node is None or value.is_graph_output() or any(use.node is not reader for use in value.uses()):
            return False
        self.values.append(value)
        if node.op_type in ("Slice", "Add"):
            axes = constant_of(optional_input(node, 3))
            sources = node.inputs if node.op_type == "Add" else node.inputs[:1]
            moves = node.op_type == "Add" or (axes is not None and set(axes.tolist()) <= _SPATIAL)
            return moves and all(source is not None and self.collect(source, node) for source in sources)
        if node.op_type not in _FUSED or not _can_pad(node) or self.classes not in (0, _channels(node)):
            return False
        self.classes = _channels(node)
        # A convolution reads features. So may a transposed one, whose input then stays as it is.
        self.layers[node] = node.op_type == "ConvTranspose" and self._collects(node)
        return True

    def _collects(self, node: ir.Node) -> bool:
        """Adds what makes the scores that a transposed convolution reads, or nothing."""
        layers, values, source = dict(self.layers), list(self.values), node.inputs[0]
        if source is not None and self.collect(source, node):
            return True
        self.layers, self.values = layers, values
        return False


def _argmax(graph: ir.Graph) -> ir.Node | None:
    """The ArgMax of channels before the first output, if only what moves or casts labels follows."""
    node = graph.outputs[0].producer()
    while node is not None and node.op_type in ("Cast", "Squeeze", "Slice"):
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    found = node is not None and node.op_type == "ArgMax" and node.attributes.get_int("axis", 0) == 1
    return node if found else None


def _can_pad(node: ir.Node) -> bool:
    bias = optional_input(node, 2)
    constant = constant_of(node.inputs[1]) is not None and (bias is None or constant_of(bias) is not None)
    return constant and node.attributes.get_int("group", 1) == 1


def _channels(node: ir.Node) -> int:
    weights = constant_of(node.inputs[1])
    assert weights is not None
    return int(weights.shape[0 if node.op_type == "Conv" else 1])


def _last(value: ir.Value | None) -> ir.Node:
    """The layer whose bias is to be the lowest number: no other layer reads what it makes."""
    node = value.producer() if value is not None else None
    assert node is not None
    return node if node.op_type in _FUSED else _last(node.inputs[0])


def _pad(graph: ir.Graph, node: ir.Node, more: int, pads_input: bool, bias_of_padding: float) -> None:
    weights, bias = constant_of(node.inputs[1]), constant_of(optional_input(node, 2))
    assert weights is not None
    pads = [(0, 0)] * weights.ndim
    if node.op_type == "Conv":
        pads[0] = (0, more)
    else:
        pads[:2] = [(0, more if pads_input else 0), (0, more)]
    # New constants: layers may share theirs. Names of tensors are unique; those of another tool's nodes may not be.
    taken = f"{node.name}.weight/padded" in graph.initializers
    name = node.name if node.name and not taken else node.outputs[0].name
    node.replace_input_with(1, add_constant(graph, f"{name}.weight/padded", np.pad(weights, pads)))
    if bias is None and not bias_of_padding:
        return
    own = np.zeros(_channels(node) - more, weights.dtype) if bias is None else bias
    padded = np.concatenate([own, np.full(more, bias_of_padding, weights.dtype)])
    node.resize_inputs(3)
    node.replace_input_with(2, add_constant(graph, f"{name}.bias/padded", padded))
