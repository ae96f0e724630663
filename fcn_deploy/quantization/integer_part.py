"""Which part of a graph ONNX Runtime runs on integers around quantised convolutions, and by which scales.

ONNX Runtime has integer kernels for sums, products, concatenations and pooling too. A node between two integer layers
that has none costs a DequantizeLinear, a float kernel and a QuantizeLinear, which often take longer than the layers.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#quantizing-an-onnx-model
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx_ir as ir

from fcn_deploy.graph.edit import constant_of, optional_input
from fcn_deploy.graph.rectifiers import is_rectifier
from fcn_deploy.quantization.params import QuantParams
from fcn_deploy.quantization.tensors import activation, data_input

# Kernels with a scale of their own for each tensor.
_COMPUTING = frozenset({"Add", "Mul", "Concat", "LeakyRelu", "AveragePool", "GlobalAveragePool"})
# Kernels that only move integers: their output has the scale of their input.
_MOVING = frozenset({"MaxPool", "DepthToSpace", "SpaceToDepth", "Slice", "Resize"})
# What makes the factors of attention over channels: one value a channel, so that quantising them costs nothing.
_GATES = ("Sigmoid", "HardSigmoid")
_HIGHEST = 255
# The range of a ReLU6 may end at 6 rounded.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class IntegerPart:
    """What ONNX Runtime runs on integers.

    Attributes:
        nodes: The quantised convolutions and what runs on integers with them, rectifiers among them.
        params: Of each tensor that exists as integers, in graph order.
    """

    nodes: frozenset[ir.Node]
    params: dict[ir.Value, QuantParams]


def integer_part(
    graph: ir.Graph,
    convs: Collection[ir.Node],
    params_of: Callable[[ir.Value], QuantParams],
    has_range: Callable[[ir.Value], bool],
) -> IntegerPart:
    """Finds what runs on integers if convolutions do.

    A node joins them if what it reads is there as integers and an integer layer reads what it makes.

    Args:
        graph: In float.
        convs: The convolutions that are quantised.
        params_of: Returns the parameters of a tensor by its range; an error of its own, if there is no range, is passed
            on.
        has_range: Whether there is one. What is computed from sizes alone, such as coordinates, may have none.
    """
    joined = _joining(graph, set(convs), has_range)
    tensors = {value for conv in convs for value in (data_input(conv), activation(conv))}
    for node in joined:
        tensors.update((*_read(node), _made(node)))
    made_by = set(convs) | joined
    rectifiers = {node for node in graph if is_rectifier(node) and _maker(node.outputs[0]) in made_by}
    order = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    ordered = [value for value in order if value in tensors]
    source = _Sources(ordered)
    for node in graph:
        if node in joined and node.op_type in _MOVING:
            source.follow(_made(node), _read(node)[0])
    for node in reversed(graph):  # of a concatenation that another reads, the last decides
        if node in joined and node.op_type == "Concat":
            _share_scale(node, source, params_of)
    known = {value: params_of(value) for value in dict.fromkeys(map(source.of, ordered))}
    return IntegerPart(frozenset(made_by | rectifiers), {value: known[source.of(value)] for value in ordered})


def _joining(graph: ir.Graph, convs: set[ir.Node], has_range: Callable[[ir.Value], bool]) -> set[ir.Node]:
    able = [node for node in graph if _has_kernel(node)]
    joined = {node for node in able if node.op_type in _MOVING or all(map(has_range, (*_read(node), _made(node))))}
    read_by_convs = {data_input(conv) for conv in convs}

    def integer(value: ir.Value) -> bool:
        return value in read_by_convs or _maker(value) in convs or _maker(value) in joined

    def fits(node: ir.Node) -> bool:
        given = [integer(value) for value in _read(node)]
        if node.op_type == "Mul":
            given = [each or _is_gate(value) for each, value in zip(given, _read(node), strict=True)]
        if not (any(given) if node.op_type == "Concat" else all(given)):
            return False
        made = _made(node)
        return made in read_by_convs or any(use.node in joined for use in made.uses())

    while unfit := {node for node in joined if not fits(node)}:
        joined -= unfit
    return joined


def _has_kernel(node: ir.Node) -> bool:
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    if node.op_type == "MaxPool":
        return len(node.outputs) == 1
    if node.op_type == "Concat" and node.attributes.get_int("axis", 0) != 1:
        return False
    if node.op_type == "AveragePool" and counts_beyond_map(node):
        return False
    return node.op_type in _MOVING | _COMPUTING and all(constant_of(value) is None for value in _read(node))


def counts_beyond_map(node: ir.Node) -> bool:
    """Returns whether an AveragePool may divide by more than the map and its padding hold.

    ONNX Runtime's integer kernel then divides by the whole window, its float kernel and PyTorch by the part that lies
    on the padded map.
    """
    return all(node.attributes.get_int(name, 0) for name in ("ceil_mode", "count_include_pad"))


def _read(node: ir.Node) -> tuple[ir.Value, ...]:
    """The tensors that a node computes on."""
    if node.op_type in ("Add", "Mul", "Concat"):
        return tuple(value for value in node.inputs if value is not None)
    return (data_input(node),)


def _made(node: ir.Node) -> ir.Value:
    return node.outputs[0] if node.op_type in _MOVING else activation(node)


def _maker(value: ir.Value) -> ir.Node | None:
    """The node whose kernel makes a tensor: a rectifier is part of the one before it."""
    maker = value.producer()
    while maker is not None and is_rectifier(maker):
        maker = data_input(maker).producer()
    if maker is None or maker.op_type in _MOVING or activation(maker) is not value:
        return value.producer()
    return maker


def _is_gate(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in _GATES


class _Sources:
    """By whose range each tensor is quantised."""

    def __init__(self, tensors: list[ir.Value]) -> None:
        self._of = {value: value for value in tensors}

    def of(self, value: ir.Value) -> ir.Value:
        return self._of[value]

    def group(self, value: ir.Value) -> list[ir.Value]:
        return [other for other, source in self._of.items() if source is self._of[value]]

    def follow(self, value: ir.Value, leader: ir.Value) -> None:
        """Gives a tensor, and all that have its scale, the scale of another."""
        for each in self.group(value):
            self._of[each] = self._of[leader]


def _share_scale(concat: ir.Node, source: _Sources, params_of: Callable[[ir.Value], QuantParams]) -> None:
    """Gives what only a concatenation reads the scale of the whole: it is rounded once then, not twice."""
    whole = _made(concat)
    params = params_of(source.of(whole))
    for value in _read(concat):
        group = source.group(value)
        alone = all(len({use.node for use in each.uses()}) == 1 and not each.is_graph_output() for each in group)
        if alone and all(_holds(params, each) for each in group):
            source.follow(value, whole)


def _holds(params: QuantParams, value: ir.Value) -> bool:
    """Whether the integers of a scale end where a rectifier's output does: only then is it part of a convolution."""
    rectifier = value.producer()
    if rectifier is None or not is_rectifier(rectifier):
        return True
    highest = constant_of(optional_input(rectifier, 2)) if rectifier.op_type == "Clip" else None
    largest = float(params.scale) * _HIGHEST
    return int(params.zero_point) == 0 and (highest is None or largest <= float(highest) * (1 + _ROUNDING))
