"""Rewrites transposed convolutions as what ONNX Runtime's CPU kernels do faster: an interpolation or a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import NodeWriter, constant_of, optional_input, replace_node
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

# The bilinear kernel's values are at most 1; in float32 they differ by one rounding at most.
_ROUNDING = 2e-7
_END = np.iinfo(np.int64).max

# A convolution computes 9/4 of the products of a kernel of twice the stride. With long strides its faster kernels make
# up for that, with a stride of 2 they do not: docs/performance.md.
_LEAST_STRIDE = 4


class RewriteUpsampling(Rewrite):
    """Replaces every transposed convolution that an interpolation, a convolution or groups can express.

    What:
        Three rewrites, all with the same sums, at the border and at every size:

        - If each channel is upsampled by itself and by the bilinear kernel, as FCNs begin and their frozen layers stay,
          the layer is linear interpolation of the map in a border of zeros: Pad, Resize and Slice.
        - Else, from strides of 4 on, the outputs that share a position within the stride are a convolution of the
          input: s * s of them side by side in the channels of one Conv, put in their places by DepthToSpace
          ("sub-pixel convolution"). The Conv keeps the layer's name, because it still multiplies.
        - Else weights that are zero between different channels are stored as those of a layer of as many groups.

    Why:
        ONNX Runtime's ConvTranspose is a matrix product whose columns are then added up where they overlap, one after
        the other.

    Before -> after:
        ConvTranspose
        Pad -> Resize -> Slice, or Conv -> DepthToSpace -> Slice, or ConvTranspose of more groups

    Source:
        Shi et al. 2016, https://arxiv.org/abs/1609.05158; measured: docs/performance.md.
    """

    # The same sums in another order.
    tolerance: ClassVar[float | None] = 1e-5

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the transposed convolutions one by one."""
        modified = False
        declined = []
        for node in [node for node in model.graph if node.op_type == "ConvTranspose"]:
            reason = _rewrite(model.graph, node)
            if reason is None:
                modified = True
            else:
                declined.append(Declined(reason, node.name))
        return RewriteResult(model, modified, tuple(declined))


def _rewrite(graph: ir.Graph, node: ir.Node) -> str | None:
    """Replaces a transposed convolution; returns the reason if no rewrite can express it."""
    reason = _reason_against(node)
    if reason is not None:
        return reason
    layer = _read(node)
    reason = _interpolate(graph, node, layer) if layer.is_bilinear else _convolve(graph, node, layer)
    if reason is not None and layer.separated:
        _separate(graph, node, layer)
        return None
    return reason


@dataclass(frozen=True, eq=False)
class _Transposed:
    """A transposed convolution of maps.

    Attributes:
        weights: float32 [in, out / groups, kH, kW].
        bias: float32 [out].
        groups: Number of groups.
        stride: Along height and width, as are the two that follow.
        begin: Padding at the start, which is cut off the output.
        missing: How much shorter the output is than if nothing were cut: padding of both sides less output padding.
        separated: Whether the groups are not the node's own, but made because weights are zero between channels.
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


def _reason_against(node: ir.Node) -> str | None:
    """Why no rewrite can express a node: it must be a transposed convolution of maps by constants, of known padding."""
    weights, bias = constant_of(node.inputs[1]), optional_input(node, 2)
    if weights is None or weights.ndim != 4 or weights.dtype != np.float32:
        return "its weights are not constant float32 [in, out, kH, kW]"
    if bias is not None and constant_of(bias) is None:
        return "its bias is computed"
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        return "its padding depends on the size"
    if set(node.attributes.get_ints("dilations", (1, 1))) != {1}:
        return "it is dilated"
    return None


def _read(node: ir.Node) -> _Transposed:
    """What a node says that `_reason_against` has nothing against."""
    weights, bias = constant_of(node.inputs[1]), constant_of(optional_input(node, 2))
    assert weights is not None
    attributes = node.attributes
    groups = attributes.get_int("group", 1)
    top, left, bottom, right = attributes.get_ints("pads", (0, 0, 0, 0))
    extra = attributes.get_ints("output_padding", (0, 0))
    vertical, horizontal = attributes.get_ints("strides", (1, 1))
    separated = groups == 1 and _is_diagonal(weights)
    if separated:
        groups, weights = len(weights), np.ascontiguousarray(np.einsum("ccij->cij", weights)[:, np.newaxis])
    return _Transposed(
        weights=weights,
        bias=np.zeros(weights.shape[1] * groups, np.float32) if bias is None else bias,
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


def _interpolate(graph: ir.Graph, node: ir.Node, layer: _Transposed) -> str | None:
    cuts = []
    for kernel, stride, begin, missing in zip(layer.kernel, layer.stride, layer.begin, layer.missing, strict=True):
        # Output o lies at (o + begin - (kernel - 1) / 2) / stride of the input, and u of the resized map, before
        # which the border is `stride` wide, at (u - stride - (stride - 1) / 2) / stride.
        first = begin + (3 * stride - kernel) // 2
        last = 3 * stride + missing - kernel - first
        if first < 0 or last < 0:
            return "it gives more than a border of one pixel covers"
        cuts.append((first, last))
    write = NodeWriter(graph, str(node.name))
    padded = write.add("Pad", node.inputs[0], write.sizes("border", 0, 0, 1, 1, 0, 0, 1, 1))
    scales = write.constant("scales", np.array([1, 1, *layer.stride], np.float32))
    resized = write.add("Resize", padded, None, scales, mode="linear", coordinate_transformation_mode="half_pixel")
    value = _cut(write, resized, cuts)
    if layer.bias.any():
        write.add("Add", value, write.constant("bias", layer.bias[:, np.newaxis, np.newaxis]))
    replace_node(graph, node, write.nodes)
    return None


def _convolve(graph: ir.Graph, node: ir.Node, layer: _Transposed) -> str | None:
    stride = layer.stride[0]
    if layer.stride != (stride, stride) or stride < _LEAST_STRIDE:
        return f"its strides are {layer.stride}, not two equal ones of {_LEAST_STRIDE} or more"
    axes = [_Phases.of(*axis, stride) for axis in zip(layer.kernel, layer.begin, layer.missing, strict=True)]
    if any(axis.before < 0 or axis.after < 0 for axis in axes):
        return "it cuts off more than a kernel"
    vertical, horizontal = axes
    channels, per_group = layer.weights.shape[:2]
    # [groups, in / groups, out / groups, kH, kW], and of the result [out, s, s, in / groups, taps, taps].
    grouped = layer.weights.reshape(layer.groups, channels // layer.groups, per_group, *layer.kernel)
    by_rows = grouped[:, :, :, vertical.taps] * vertical.valid[..., np.newaxis]
    by_both = by_rows[..., horizontal.taps] * horizontal.valid
    phases = by_both.transpose(0, 2, 3, 5, 1, 4, 6)
    outputs = layer.groups * per_group * stride * stride
    weights = phases.reshape(outputs, channels // layer.groups, *phases.shape[-2:])
    write = NodeWriter(graph, str(node.name))
    conv = write.add(
        "Conv",
        node.inputs[0],
        write.constant("phases", np.ascontiguousarray(weights)),
        write.constant("phases/bias", np.repeat(layer.bias, stride * stride)),
        group=layer.groups,
        pads=[vertical.before, horizontal.before, vertical.after, horizontal.after],
    )
    write.name_last_as_layer()
    placed = write.add("DepthToSpace", conv, blocksize=stride, mode="CRD")
    _cut(write, placed, [(0, axis.excess) for axis in axes])
    replace_node(graph, node, write.nodes)
    return None


def _separate(graph: ir.Graph, node: ir.Node, layer: _Transposed) -> None:
    """Keeps the layer, with a group for each channel, because its weights are zero between different channels."""
    weights = NodeWriter(graph, str(node.name)).constant("diagonal", layer.weights)
    attributes = [attribute for attribute in node.attributes.values() if attribute.name != "group"]
    inputs = [node.inputs[0], weights, *node.inputs[2:]]
    grouped = ir.Node("", "ConvTranspose", inputs, [*attributes, ir.AttrInt64("group", layer.groups)], name=node.name)
    replace_node(graph, node, [grouped])


@dataclass(frozen=True, eq=False)
class _Phases:
    """One axis of a transposed convolution as a convolution for each position within the stride.

    Attributes:
        taps: int [stride, size]: for each position and tap of the convolution, the tap of the transposed one.
        valid: bool, of the same shape: whether there is such a tap.
        before: Padding of the convolution at the start.
        after: Padding at the end.
        excess: How much of the result lies past the transposed convolution's output.
    """

    taps: NDArray[np.int64]
    valid: NDArray[np.bool_]
    before: int
    after: int
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


def _cut(write: NodeWriter, value: ir.Value, cuts: list[tuple[int, int]]) -> ir.Value:
    """Writes a Slice that takes so much off the start and the end of height and width, unless that is nothing."""
    if not any(map(any, cuts)):
        return value
    starts = write.sizes("starts", *(first for first, _ in cuts))
    ends = write.sizes("ends", *(-last or _END for _, last in cuts))
    return write.add("Slice", value, starts, ends, write.sizes("axes", 2, 3))
