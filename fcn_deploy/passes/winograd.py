"""Rewrites 3x3 convolutions by Winograd's algorithm F(4x4, 3x3), in operators every ONNX Runtime has.

Everything that knows how such a layer is named is here: `winograd_candidates`, `winograd_layers`, `winograd_nodes`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.errors import UsageError
from fcn_deploy.graph.edit import NodeWriter, constant_of, optional_input, replace_node
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

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

# Only a layer written by this rewrite has a node of this name; other matrix products have names of layers, too.
_TILES = "tiles"


class Winograd(Rewrite):
    """Replaces float 3x3 convolutions of stride 1 by Winograd's algorithm.

    What:
        A tile of 4x4 outputs is computed from 6x6 inputs: Y = A' [(G w G') * (B' x B)] A, where the product in the
        middle, summed over input channels, is a matrix product for each of the 36 places of a tile. In operators:

        - B' x B for all tiles: a depthwise Conv of 6x6 with stride 4 and 36 outputs a channel,
        - the products: one batched MatMul with the transformed weights, places first: [36, N, C, tiles],
        - A' ... A: one MatMul of a constant [16, 36] with all of that, and two Transposes, which put the 16 pixels of
          each tile in their places.

        Tiles past the border of the map are cut off; sizes and batches stay dynamic. Weights are stored as they were:
        their transformation is of constants, done when a session is opened.

        The MatMul of the products has the layer's name; the names of all other nodes begin with it and a slash.

    Why:
        36 products a pair of channels instead of 144. ONNX Runtime multiplies directly; this pays if many channels make
        the products expensive and the transformations, which are for each channel alone, cheap.

    Before -> after:
        Conv
        Conv (tiles) -> Reshape, Transpose -> MatMul (products) -> MatMul (pixels) -> Reshape, Transpose -> Add -> Slice

    Source:
        Lavin and Gray 2015, https://arxiv.org/abs/1509.09308, section 4.3; measured: docs/performance.md.

    Args:
        layers: Names of the layers to replace; those of `LEAST_CHANNELS` or more if None.
    """

    # Transformed weights and inputs are rounded: up to 5e-6 was measured, on noise, with 128 to 512 channels.
    tolerance: ClassVar[float | None] = 1e-5

    def __init__(self, layers: Collection[str] | None = None) -> None:
        self._layers = layers

    def call(self, model: ir.Model) -> RewriteResult:
        """Replaces the layers.

        Raises:
            UsageError: One of them is not a float 3x3 convolution of stride 1, padding 1 and constant weights.
        """
        graph = model.graph
        candidates = winograd_candidates(graph, 1)
        if self._layers is None:
            chosen = winograd_candidates(graph)
            reason = f"fewer than {LEAST_CHANNELS} channels: it would not be faster"
            declined = tuple(Declined(reason, name) for name in candidates if name not in chosen)
        else:
            chosen, declined = _checked(self._layers, candidates), ()
        for node in [node for node in graph if node.name in chosen and _reason_against(node) is None]:
            _rewrite(graph, node)
        return RewriteResult(model, bool(chosen), declined)


def winograd_candidates(graph: ir.Graph, least_channels: int = LEAST_CHANNELS) -> tuple[str, ...]:
    """Returns the names of the layers that `Winograd` can replace and that read and write so many channels or more."""
    return tuple(
        str(node.name)
        for node in graph
        if node.name and _reason_against(node) is None and _has_channels(node, least_channels)
    )


def winograd_layers(graph: ir.Graph) -> tuple[str, ...]:
    """Returns the names of the layers that `Winograd` has replaced in a graph."""
    names = {str(node.name) for node in graph}
    return tuple(str(node.name) for node in graph if node.op_type == "MatMul" and f"{node.name}/{_TILES}" in names)


def winograd_nodes(graph: ir.Graph, layer: str) -> tuple[str, ...]:
    """Returns the names of all nodes that together are a layer that `Winograd` has replaced."""
    return tuple(str(node.name) for node in graph if node.name == layer or str(node.name).startswith(f"{layer}/"))


def _checked(layers: Collection[str], candidates: Collection[str]) -> tuple[str, ...]:
    unfit = sorted(set(layers).difference(candidates))
    if unfit:
        raise UsageError(
            "Winograd's algorithm is for other layers",
            got=", ".join(unfit),
            expected="float 3x3 convolutions of stride 1 and padding 1",
        )
    return tuple(layers)


def _reason_against(node: ir.Node) -> str | None:
    if node.op_type != "Conv":
        return "it is not a convolution"
    weights, bias = constant_of(node.inputs[1]), optional_input(node, 2)
    if weights is None or weights.dtype != np.float32 or weights.shape[2:] != (3, 3):
        return "its weights are not constant float32 [out, in, 3, 3]"
    attributes = node.attributes
    plain = (
        attributes.get_int("group", 1) == 1
        and set(attributes.get_ints("strides", (1, 1))) == {1}
        and set(attributes.get_ints("dilations", (1, 1))) == {1}
        and set(attributes.get_ints("pads", (0, 0, 0, 0))) == {1}
        and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )
    if not plain:
        return "it has groups, strides, dilations or a padding other than 1"
    return "its bias is computed" if bias is not None and constant_of(bias) is None else None


def _has_channels(conv: ir.Node, least: int = LEAST_CHANNELS) -> bool:
    """Whether a convolution reads and writes so many channels or more."""
    weights = constant_of(conv.inputs[1])
    return weights is not None and min(weights.shape[:2]) >= least


def _rewrite(graph: ir.Graph, conv: ir.Node) -> None:
    weights = constant_of(conv.inputs[1])
    assert weights is not None
    assert conv.inputs[0] is not None
    source = conv.inputs[0]
    outputs, channels = weights.shape[:2]
    write = NodeWriter(graph, str(conv.name))
    add, constant, sizes = write.add, write.constant, write.sizes

    transform = np.kron(_INPUT, _INPUT).reshape(_PLACES, 1, _PATCH, _PATCH)
    depthwise = constant("tiles/kernel", np.tile(transform, (channels, 1, 1, 1)).astype(np.float32))
    # Padded by 4 at the end, every last tile of a row or column has its 6 inputs, and none is past the map as a whole.
    tiles = add(
        "Conv", source, depthwise, suffix=_TILES, group=channels, strides=[_TILE] * 2, pads=[1, 1, _TILE, _TILE]
    )
    by_channel = add("Reshape", tiles, sizes("by_channel/shape", 0, channels, _PLACES, -1), suffix="by_channel")
    by_place = add("Transpose", by_channel, suffix="by_place", perm=[2, 0, 1, 3])
    # (G x G) w, of constants. Stored with the taps first: a transposition would take longest.
    taps = constant("weights", np.ascontiguousarray(weights.reshape(-1, 9).T))
    transformed = add("MatMul", constant("kernels", np.kron(_WEIGHTS, _WEIGHTS).astype(np.float32)), taps)
    matrices = add("Reshape", transformed, sizes("matrices/shape", _PLACES, 1, outputs, channels), suffix="matrices")
    products = add("MatMul", matrices, by_place, suffix="products")
    write.name_last_as_layer()
    places = add("Reshape", products, sizes("places/shape", _PLACES, -1), suffix="places")
    pixels = add(
        "MatMul", constant("pixels/matrix", np.kron(_OUTPUT, _OUTPUT).astype(np.float32)), places, suffix="pixels"
    )
    tiling = add("Shape", tiles, suffix="tiling", start=2)
    # Pixels find their places in two steps, each of which moves blocks: into rows, then the rows among each other.
    # DepthToSpace takes longer, and a Transpose of single pixels much longer: docs/performance.md.
    split = add("Reshape", pixels, sizes("split/shape", _TILE, _TILE, -1), suffix="split")
    lines = add("Transpose", split, suffix="lines", perm=[0, 2, 1])
    tall = add("Mul", tiling, sizes("wide", 1, _TILE), suffix="tall")
    stacked = add("Concat", sizes("stack", _TILE, -1), tall, suffix="stacked", axis=0)
    rows = add("Reshape", lines, stacked, suffix="rows")
    in_turn = add("Transpose", rows, suffix="in_turn", perm=[1, 2, 0, 3])
    covered = add("Mul", tiling, sizes("tile", _TILE, _TILE), suffix="covered")
    folded = add("Concat", sizes("maps", -1, outputs), covered, suffix="folded", axis=0)
    placed = add("Reshape", in_turn, folded, suffix="placed")
    bias = constant_of(optional_input(conv, 2))
    if bias is not None and bias.any():
        placed = add("Add", placed, constant("bias_of_maps", bias[:, np.newaxis, np.newaxis]), suffix="bias")
    size_of_map = add("Shape", source, suffix="size", start=2)
    add("Slice", placed, sizes("first", 0, 0), size_of_map, sizes("axes_of_map", 2, 3), suffix="cut")
    replace_node(graph, conv, write.nodes)
