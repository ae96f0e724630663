"""Rewrites transposed convolutions as convolutions whose channels hold the subpixels of the output."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import NodeWriter, replace_node
from fcn_deploy.graph.rectifiers import sole_rectifier
from fcn_deploy.graph.transposed import Transposed, phases_of, read_transposed, reason_against, reason_against_subpixels
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult, rewrite_each

_END = np.iinfo(np.int64).max


class ConvolveSubpixels(Rewrite):
    """Replaces the transposed convolutions of given names, for INT8: ONNX Runtime has no integer kernel for them.

    What:
        The outputs that share a position within the stride are a convolution of the input: s * s of them side by side
        in the channels of one Conv, put in their places by DepthToSpace ("sub-pixel convolution"). The Conv keeps the
        layer's name. A rectifier that follows moves to the Conv, with which it is one kernel.

    Why:
        A convolution with 8-bit integers and a DepthToSpace that moves bytes take less time than a transposed
        convolution in float, also at a stride of 2, where the convolution computes up to 16/9 of the products.

    Before -> after:
        ConvTranspose -> Relu
        Conv -> Relu -> DepthToSpace -> Slice

    Source:
        Shi et al. 2016, https://arxiv.org/abs/1609.05158; measured: docs/performance.md.

    Args:
        layers: Names of the layers to replace.
    """

    # The same sums in another order.
    tolerance: ClassVar[float | None] = 1e-5

    def __init__(self, layers: Collection[str]) -> None:
        self._layers = frozenset(layers)

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the layers one by one."""
        layers = (node for node in model.graph if node.op_type == "ConvTranspose" and node.name in self._layers)
        return rewrite_each(model, layers, _rewrite)


def _rewrite(graph: ir.Graph, node: ir.Node) -> str | None:
    reason = reason_against(node) or reason_against_subpixels(read_transposed(node))
    if reason is not None:
        return reason
    rectifiers = list(_following(node.outputs[0]))
    last = convolve(graph, node, read_transposed(node))
    for rectifier in rectifiers:
        _move_after(graph, rectifier, last)
        last = rectifier
    return None


def _following(value: ir.Value) -> Iterator[ir.Node]:
    """Yields the rectifiers between a tensor and what else reads it."""
    while (rectifier := sole_rectifier(value)) is not None:
        yield rectifier
        value = rectifier.outputs[0]


def _move_after(graph: ir.Graph, rectifier: ir.Node, conv: ir.Node) -> None:
    """Puts a rectifier right after a convolution, or one after it; what it read gets the name of what it made."""
    placed, rectified = rectifier.inputs[0], rectifier.outputs[0]
    assert placed is not None
    name = rectified.name
    rectified.replace_all_uses_with(placed, replace_graph_outputs=True)
    placed.name, rectified.name = name, f"{conv.outputs[0].name}/{rectifier.op_type}"
    graph.remove(rectifier)
    convolved = conv.outputs[0]
    readers = list(convolved.uses())
    rectifier.replace_input_with(0, convolved)
    for use in readers:
        use.node.replace_input_with(use.idx, rectified)
    graph.insert_after(conv, rectifier)


def convolve(graph: ir.Graph, node: ir.Node, layer: Transposed) -> ir.Node:
    """Replaces a ConvTranspose by a Conv of its name, and what puts the pixels of its channels in their places.

    Args:
        graph: The graph of `node`.
        node: The ConvTranspose.
        layer: What `read_transposed` says of it, and `reason_against_subpixels` has nothing against.

    Returns:
        The Conv.
    """
    stride = layer.stride[0]
    vertical, horizontal = phases_of(layer)
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
    cut(write, placed, [(0, axis.excess) for axis in (vertical, horizontal)])
    replace_node(graph, node, write.nodes)
    return write.nodes[0]


def cut(write: NodeWriter, value: ir.Value, cuts: list[tuple[int, int]]) -> ir.Value:
    """Writes a Slice, unless it would take nothing off.

    Args:
        write: Writes it.
        value: [N, C, H, W].
        cuts: How much to take off the start and the end of height and width.
    """
    if not any(map(any, cuts)):
        return value
    starts = write.sizes("starts", *(first for first, _ in cuts))
    ends = write.sizes("ends", *(-last or _END for _, last in cuts))
    return write.add("Slice", value, starts, ends, write.sizes("axes", 2, 3))
