"""Rewrites transposed convolutions as what ONNX Runtime's CPU kernels do faster: an interpolation or a convolution."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import NodeWriter, replace_node
from fcn_deploy.graph.transposed import Transposed, read_transposed, reason_against, reason_against_subpixels
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult, rewrite_each
from fcn_deploy.passes.subpixel import convolve, cut

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
        return rewrite_each(model, (node for node in model.graph if node.op_type == "ConvTranspose"), _rewrite)


def _rewrite(graph: ir.Graph, node: ir.Node) -> str | None:
    """Replaces a transposed convolution; returns the reason if no rewrite can express it."""
    reason = reason_against(node)
    if reason is not None:
        return reason
    layer = read_transposed(node)
    reason = _interpolate(graph, node, layer) if layer.is_bilinear else _convolve(graph, node, layer)
    if reason is not None and layer.separated:
        _separate(graph, node, layer)
        return None
    return reason


def _interpolate(graph: ir.Graph, node: ir.Node, layer: Transposed) -> str | None:
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
    value = cut(write, resized, cuts)
    if layer.bias.any():
        write.add("Add", value, write.constant("bias", layer.bias[:, np.newaxis, np.newaxis]))
    replace_node(graph, node, write.nodes)
    return None


def _convolve(graph: ir.Graph, node: ir.Node, layer: Transposed) -> str | None:
    stride = layer.stride[0]
    if layer.stride != (stride, stride) or stride < _LEAST_STRIDE:
        return f"its strides are {layer.stride}, not two equal ones of {_LEAST_STRIDE} or more"
    reason = reason_against_subpixels(layer)
    if reason is None:
        convolve(graph, node, layer)
    return reason


def _separate(graph: ir.Graph, node: ir.Node, layer: Transposed) -> None:
    """Keeps the layer, with a group for each channel, because its weights are zero between different channels."""
    weights = NodeWriter(graph, str(node.name)).constant("diagonal", layer.weights)
    attributes = [attribute for attribute in node.attributes.values() if attribute.name != "group"]
    inputs = [node.inputs[0], weights, *node.inputs[2:]]
    grouped = ir.Node("", "ConvTranspose", inputs, [*attributes, ir.AttrInt64("group", layer.groups)], name=node.name)
    replace_node(graph, node, [grouped])
