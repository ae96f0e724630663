"""Rewrites transposed convolutions as what ONNX Runtime's CPU kernels do faster: an interpolation or a convolution.

Its ConvTranspose is a matrix product whose columns are then added up where they overlap, one after the other. All
rewrites give the same sums, at the border and at every size:

- Where each channel is upsampled by itself and by the bilinear kernel, as FCNs begin and their frozen layers stay, the
  layer is linear interpolation of the map in a border of zeros: Pad, Resize and Slice.
- Elsewhere, from strides of 4 on, the outputs that share a position within the stride are a convolution of the input:
  s * s of them side by side in the channels of one Conv, put in their places by DepthToSpace, "sub-pixel convolution"
  (Shi et al. 2016, https://arxiv.org/abs/1609.05158).
- Weights that are zero between different channels are stored as those of a layer of as many groups.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import add_constant, constant_of, replace_node

_log = logging.getLogger(__name__)

# What float32 makes of the bilinear kernel's values, which are at most 1, differs by a rounding at most.
_ROUNDING = 2e-7
_END = np.iinfo(np.int64).max

# A convolution computes 9/4 of the products of a kernel of twice the stride. With long strides its kernels make up for
# that, with 2 they do not: docs/performance.md.
_LEAST_STRIDE = 4


def rewrite_upsampling(model: ir.Model) -> tuple[ir.Model, bool]:
    """Replaces every transposed convolution that one of the rewrites can express.

    The last node of what replaces a layer has its name where it is a Conv; so a layer that still multiplies keeps it.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type != "ConvTranspose":
            continue
        layer = _read(node)
        if layer is None:
            continue
        replace = _interpolate if layer.is_bilinear else _convolve
        changed |= replace(model.graph, node, layer) or _separate(model.graph, node, layer)
    return model, changed


@dataclass(frozen=True, eq=False)
class _Transposed:
    """A transposed convolution of maps.

    Attributes:
        weights: float32 [in, out / groups, kH, kW].
        bias: float32 [out].
        groups: How many.
        stride: Along height and width; so are what follows.
        begin: Padding in front, which is cut off the output.
        missing: How much shorter the output is than if nothing were cut: padding of both sides less output padding.
        separated: Whether the groups are not the node's, but those of weights that are zero between channels.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    groups: int
    stride: tuple[int, int]
    begin: tuple[int, int]
    missing: tuple[int, int]
    separated: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weights.shape[2], self.weights.shape[3]

    @property
    def is_bilinear(self) -> bool:
        """Whether each channel is upsampled by itself, by the bilinear kernel of the stride."""
        channels, per_group = self.weights.shape[:2]
        if per_group * self.groups != channels or any(stride < 2 for stride in self.stride):
            return False
        vertical, horizontal = (_bilinear(*axis) for axis in zip(self.kernel, self.stride, strict=True))
        if vertical is None or horizontal is None:
            return False
        own = np.arange(channels) % per_group
        expected = np.zeros_like(self.weights)
        expected[np.arange(channels), own] = np.outer(vertical, horizontal)
        return bool(np.abs(self.weights - expected).max() <= _ROUNDING)


def _read(node: ir.Node) -> _Transposed | None:
    """What a node says, if it is a transposed convolution of maps by constants and spells out its padding."""
    weights = constant_of(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    attributes = node.attributes
    reason = None
    if weights is None or weights.ndim != 4 or weights.dtype != np.float32:
        reason = "its weights are not constant float32 [in, out, kH, kW]"
    elif bias is not None and constant_of(bias) is None:
        reason = "its bias is computed"
    elif attributes.get_string("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in attributes:
        reason = "its padding depends on the size"
    elif set(attributes.get_ints("dilations", (1, 1))) != {1}:
        reason = "it is dilated"
    if reason is not None or weights is None:
        _log.debug("rewrite_upsampling declines %s: %s", node.name, reason)
        return None
    groups = attributes.get_int("group", 1)
    top, left, bottom, right = attributes.get_ints("pads", (0, 0, 0, 0))
    extra = attributes.get_ints("output_padding", (0, 0))
    vertical, horizontal = attributes.get_ints("strides", (1, 1))
    values = constant_of(bias)
    separated = groups == 1 and _is_diagonal(weights)
    if separated:
        groups, weights = len(weights), np.ascontiguousarray(np.einsum("ccij->cij", weights)[:, np.newaxis])
    return _Transposed(
        weights=weights,
        bias=np.zeros(weights.shape[1] * groups, np.float32) if values is None else values,
        groups=groups,
        separated=separated,
        stride=(vertical, horizontal),
        begin=(top, left),
        missing=(top + bottom - extra[0], left + right - extra[1]),
    )


def _is_diagonal(weights: NDArray[np.float32]) -> bool:
    """Whether each of several channels is upsampled by itself."""
    channels = len(weights)
    return 1 < channels == weights.shape[1] and not weights[~np.eye(channels, dtype=bool)].any()


def _bilinear(kernel: int, stride: int) -> NDArray[np.float64] | None:
    """One axis of the kernel that interpolates linearly: 2s taps, of odd strides 2s - 1; None of another size."""
    if kernel != 2 * stride - stride % 2:
        return None
    taps: NDArray[np.float64] = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / stride
    return taps


def _interpolate(graph: ir.Graph, node: ir.Node, layer: _Transposed) -> bool:
    name = str(node.name)
    cuts = []
    for kernel, stride, begin, missing in zip(layer.kernel, layer.stride, layer.begin, layer.missing, strict=True):
        # Output o lies at (o + begin - (kernel - 1) / 2) / stride of the input, and u of the resized map, in front of
        # which the border is `stride` wide, at (u - stride - (stride - 1) / 2) / stride.
        first = begin + (3 * stride - kernel) // 2
        last = 3 * stride + missing - kernel - first
        if first < 0 or last < 0:
            _log.debug("rewrite_upsampling declines %s: it gives more than a border of one pixel covers", name)
            return False
        cuts.append((first, last))
    pads = add_constant(graph, f"{name}/border", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    scales = add_constant(graph, f"{name}/scales", np.array([1, 1, *layer.stride], np.float32))
    padded = ir.node("Pad", [node.inputs[0], pads], name=f"{name}/Pad")
    resized = ir.node(
        "Resize",
        [padded.outputs[0], None, scales],
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        name=f"{name}/Resize",
    )
    nodes = [padded, resized, *_cut(graph, name, resized.outputs[0], cuts)]
    if layer.bias.any():
        bias = add_constant(graph, f"{name}/bias", layer.bias[:, np.newaxis, np.newaxis])
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias], name=f"{name}/Add"))
    replace_node(graph, node, nodes)
    return True


def _convolve(graph: ir.Graph, node: ir.Node, layer: _Transposed) -> bool:
    name, stride = str(node.name), layer.stride[0]
    if layer.stride != (stride, stride) or stride < _LEAST_STRIDE:
        _log.debug("rewrite_upsampling declines %s: strides of %s", name, layer.stride)
        return False
    axes = [_Phases.of(*axis, stride) for axis in zip(layer.kernel, layer.begin, layer.missing, strict=True)]
    if any(axis.before < 0 or axis.behind < 0 for axis in axes):
        _log.debug("rewrite_upsampling declines %s: it cuts off more than a kernel", name)
        return False
    vertical, horizontal = axes
    channels, per_group = layer.weights.shape[:2]
    # [groups, in / groups, out / groups, kH, kW], and of the result [out, s, s, in / groups, taps, taps].
    grouped = layer.weights.reshape(layer.groups, channels // layer.groups, per_group, *layer.kernel)
    by_rows = grouped[:, :, :, vertical.taps] * vertical.valid[..., np.newaxis]
    by_both = by_rows[..., horizontal.taps] * horizontal.valid
    phases = by_both.transpose(0, 2, 3, 5, 1, 4, 6)
    outputs = layer.groups * per_group * stride * stride
    weights = phases.reshape(outputs, channels // layer.groups, *phases.shape[-2:])
    conv = ir.node(
        "Conv",
        [
            node.inputs[0],
            add_constant(graph, f"{name}/phases", np.ascontiguousarray(weights)),
            add_constant(graph, f"{name}/phases/bias", np.repeat(layer.bias, stride * stride)),
        ],
        {
            "group": layer.groups,
            "pads": [vertical.before, horizontal.before, vertical.behind, horizontal.behind],
        },
        name=name,
    )
    placed = ir.node("DepthToSpace", conv.outputs, {"blocksize": stride, "mode": "CRD"}, name=f"{name}/DepthToSpace")
    replace_node(
        graph, node, [conv, placed, *_cut(graph, name, placed.outputs[0], [(0, axis.excess) for axis in axes])]
    )
    return True


def _separate(graph: ir.Graph, node: ir.Node, layer: _Transposed) -> bool:
    """Keeps the layer, with a group for each channel, where its weights are zero between them."""
    if not layer.separated:
        return False
    weights = add_constant(graph, f"{node.name}/diagonal", layer.weights)
    attributes = [attribute for attribute in node.attributes.values() if attribute.name != "group"]
    inputs = [node.inputs[0], weights, *node.inputs[2:]]
    grouped = ir.Node("", "ConvTranspose", inputs, [*attributes, ir.AttrInt64("group", layer.groups)], name=node.name)
    replace_node(graph, node, [grouped])
    return True


@dataclass(frozen=True, eq=False)
class _Phases:
    """One axis of a transposed convolution as a convolution for each position within the stride.

    Attributes:
        taps: int [stride, size]: for each position and tap of the convolution, the tap of the transposed one.
        valid: bool, of the same shape: whether there is such a tap.
        before: Padding of the convolution in front.
        behind: Padding behind.
        excess: How much of the result is past the transposed convolution's output.
    """

    taps: NDArray[np.int64]
    valid: NDArray[np.bool_]
    before: int
    behind: int
    excess: int

    @classmethod
    def of(cls, kernel: int, begin: int, missing: int, stride: int) -> _Phases:
        # Output stride * m + r has input m - d by tap stride * d + r + begin.
        farthest, nearest = (kernel - 1 - begin) // stride, -((stride - 1 + begin) // stride)
        distance = np.arange(farthest, nearest - 1, -1)
        taps = stride * distance + np.arange(stride)[:, np.newaxis] + begin
        valid = (taps >= 0) & (taps < kernel)
        # The transposed convolution gives stride * (input - 1) + rest.
        rest = kernel - missing
        blocks = -(-rest // stride)
        return cls(np.where(valid, taps, 0), valid, farthest, blocks - 1 - nearest, stride * blocks - rest)


def _cut(graph: ir.Graph, name: str, value: ir.Value, cuts: list[tuple[int, int]]) -> list[ir.Node]:
    """A Slice that takes so much off the begin and the end of height and width; nothing where that is nothing."""
    if not any(map(any, cuts)):
        return []
    starts = np.array([first for first, _ in cuts], np.int64)
    ends = np.array([-last or _END for _, last in cuts], np.int64)
    inputs = [
        value,
        add_constant(graph, f"{name}/starts", starts),
        add_constant(graph, f"{name}/ends", ends),
        add_constant(graph, f"{name}/axes", np.array([2, 3], np.int64)),
    ]
    return [ir.node("Slice", inputs, name=f"{name}/Slice")]
