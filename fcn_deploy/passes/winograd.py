"""Rewrites 3x3 convolutions by Winograd's algorithm F(4x4, 3x3), in operators every ONNX Runtime has.

A tile of 4x4 outputs is computed from 6x6 inputs by 36 products a pair of channels instead of 144 (Lavin and Gray 2015,
https://arxiv.org/abs/1509.09308, section 4.3): Y = A' [(G w G') * (B' x B)] A, where the product in the middle, summed
over input channels, is a matrix product for each of the 36 places of a tile. In operators:

- B' x B for all tiles: a depthwise Conv of 6x6 with stride 4 and 36 outputs a channel,
- the products: one batched MatMul with the transformed weights, places first: [36, N, C, tiles],
- A' ... A: one MatMul of a constant [16, 36] with all of that, and two Transposes, which put the 16 pixels of each tile
  in their places.

ONNX Runtime multiplies directly, so this pays where many channels make the products dear and the transformations, which
are for each channel alone, cheap. Tiles past the border of the map are cut off; sizes and batches stay dynamic. Weights
are stored as they were: their transformation is of constants, done when a session is opened.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.errors import UsageError
from fcn_deploy.graph.edit import add_constant, constant_of, replace_node

_log = logging.getLogger(__name__)

_TILE = 4
_PATCH = _TILE + 2
_PLACES = _PATCH * _PATCH

# Points 0, 1, -1, 2, -2 and infinity: the matrices of the paper.
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
_WEIGHTS = (
    np.array(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
        np.float64,
    )
    / 24
)
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float64,
)

# With fewer channels the transformations cost what the products save: docs/performance.md.
LEAST_CHANNELS = 128


def winograd_layers(graph: ir.Graph, least_channels: int = LEAST_CHANNELS) -> tuple[str, ...]:
    """Returns the names of the float 3x3 convolutions of stride 1 that read and write so many channels or more."""
    return tuple(str(node.name) for node in graph if node.name and _fits(node, least_channels))


def multiply_by_winograd(model: ir.Model, layers: Collection[str] | None = None) -> tuple[ir.Model, bool]:
    """Replaces 3x3 convolutions.

    The node that stands for a layer, its matrix product, has the layer's name; the names of all others begin with it
    and a slash.

    Args:
        model: Any model; changed in place.
        layers: Names of those to replace; those of `LEAST_CHANNELS` or more where None.

    Raises:
        UsageError: One of them is no float 3x3 convolution of stride 1, padding 1 and constant weights.
    """
    graph = model.graph
    chosen = winograd_layers(graph) if layers is None else set(layers)
    unfit = sorted(set(chosen).difference(winograd_layers(graph, 1)))
    if unfit:
        raise UsageError(
            "Winograd's algorithm is for other layers",
            got=", ".join(unfit),
            expected="float 3x3 convolutions of stride 1 and padding 1",
        )
    for node in [node for node in graph if node.name in chosen and _fits(node, 1)]:
        _rewrite(graph, node)
    if not chosen:
        _log.debug("multiply_by_winograd: nothing to replace")
    return model, bool(chosen)


def _fits(conv: ir.Node, least_channels: int) -> bool:
    weights = constant_of(conv.inputs[1]) if conv.op_type == "Conv" else None
    if weights is None or weights.dtype != np.float32 or weights.shape[2:] != (3, 3):
        return False
    attributes = conv.attributes
    plain = (
        attributes.get_int("group", 1) == 1
        and set(attributes.get_ints("strides", (1, 1))) == {1}
        and set(attributes.get_ints("dilations", (1, 1))) == {1}
        and set(attributes.get_ints("pads", (0, 0, 0, 0))) == {1}
        and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    return plain and min(weights.shape[:2]) >= least_channels and (bias is None or constant_of(bias) is not None)


def _rewrite(graph: ir.Graph, conv: ir.Node) -> None:
    weights = constant_of(conv.inputs[1])
    assert weights is not None
    assert conv.inputs[0] is not None
    name, source = str(conv.name), conv.inputs[0]
    outputs, channels = weights.shape[:2]
    nodes: list[ir.Node] = []

    def constant(what: str, array: NDArray[np.generic]) -> ir.Value:
        return add_constant(graph, f"{name}/{what}", array)

    def add(operator: str, *inputs: ir.Value, suffix: str | None = None, **attributes: object) -> ir.Value:
        node = ir.node(operator, inputs, attributes, name=f"{name}/{suffix or operator}")  # type: ignore[arg-type]
        nodes.append(node)
        node.outputs[0].name = f"{node.name}/output"  # of products, before that takes the name of the layer
        return node.outputs[0]

    def shape(what: str, *sizes: int) -> ir.Value:
        return constant(what, np.array(sizes, np.int64))

    transform = np.kron(_INPUT, _INPUT).reshape(_PLACES, 1, _PATCH, _PATCH)
    depthwise = constant("tiles", np.tile(transform, (channels, 1, 1, 1)).astype(np.float32))
    # Padded by 4 behind, every last tile of a row or column has its 6 inputs, and none is past the map as a whole.
    tiles = add(
        "Conv", source, depthwise, suffix="tiles", group=channels, strides=[_TILE] * 2, pads=[1, 1, _TILE, _TILE]
    )
    by_channel = add("Reshape", tiles, shape("by_channel", 0, channels, _PLACES, -1), suffix="by_channel")
    by_place = add("Transpose", by_channel, suffix="by_place", perm=[2, 0, 1, 3])
    # (G x G) w, of constants. Stored with the taps first, for a transposition is what would take longest.
    taps = constant("weights", np.ascontiguousarray(weights.reshape(-1, 9).T))
    transformed = add("MatMul", constant("kernels", np.kron(_WEIGHTS, _WEIGHTS).astype(np.float32)), taps)
    matrices = add("Reshape", transformed, shape("matrices", _PLACES, 1, outputs, channels), suffix="matrices")
    products = add("MatMul", matrices, by_place, suffix="products")
    nodes[-1].name = name
    places = add("Reshape", products, shape("places", _PLACES, -1), suffix="places")
    pixels = add("MatMul", constant("pixels", np.kron(_OUTPUT, _OUTPUT).astype(np.float32)), places, suffix="pixels")
    tiling = add("Shape", tiles, suffix="tiling", start=2)
    # Pixels find their places in two steps, each of which moves blocks: into rows, then the rows among each other.
    # DepthToSpace takes longer, and a Transpose of single pixels much longer: docs/performance.md.
    split = add("Reshape", pixels, shape("split", _TILE, _TILE, -1), suffix="split")
    lines = add("Transpose", split, suffix="lines", perm=[0, 2, 1])
    tall = add("Mul", tiling, shape("wide", 1, _TILE), suffix="tall")
    stacked = add("Concat", shape("stack", _TILE, -1), tall, suffix="stacked", axis=0)
    rows = add("Reshape", lines, stacked, suffix="rows")
    in_turn = add("Transpose", rows, suffix="in_turn", perm=[1, 2, 0, 3])
    covered = add("Mul", tiling, shape("tile", _TILE, _TILE), suffix="covered")
    folded = add("Concat", shape("maps", -1, outputs), covered, suffix="folded", axis=0)
    placed = add("Reshape", in_turn, folded, suffix="placed")
    bias = constant_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
    if bias is not None and bias.any():
        placed = add("Add", placed, constant("bias_of_maps", bias[:, np.newaxis, np.newaxis]), suffix="bias")
    size_of_map = add("Shape", source, suffix="size", start=2)
    add("Slice", placed, shape("first", 0, 0), size_of_map, shape("axes_of_map", 2, 3), suffix="cut")
    replace_node(graph, conv, nodes)
