"""Writes the last window of a max-pool that counts it (`ceil_mode`) as padding, for OpenVINO's check of sizes."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.passes.rewrite import Rewrite, RewriteResult, rewrite_each


class PaddedPools(Rewrite):
    """Replaces `ceil_mode` of max-pools by padding at the end.

    What:
        A window that begins inside the map and ends outside it counts either way. The padding is the stride less one,
        and never the maximum, because it counts as the smallest number.

    Why:
        OpenVINO refuses a map that is smaller than the kernel, also if `ceil_mode` allows it: an FCN could not label
        images of up to 16 pixels. With the padding, the map is as large as the kernel.

    Before -> after:
        MaxPool (kernel 2, stride 2, ceil_mode)
        MaxPool (kernel 2, stride 2, 1 more at the end of each axis)

    Source:
        The sizes of outputs in https://onnx.ai/onnx/operators/onnx__MaxPool.html: with `ceil_mode`
        `ceil((in + pads - kernel) / stride) + 1`, less a window that begins in the padding at the end; without it
        `floor((in + pads - kernel) / stride) + 1`.
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the max-pools one by one."""
        pools = (n for n in model.graph if n.op_type == "MaxPool" and n.attributes.get_int("ceil_mode", 0) != 0)
        return rewrite_each(model, pools, _pad)


def _pad(graph: ir.Graph, node: ir.Node) -> str | None:
    """Pads a max-pool; returns the reason if its windows would be others."""
    attributes = node.attributes
    kernel = attributes.get_ints("kernel_shape")
    axes = len(kernel)
    strides = attributes.get_ints("strides", (1,) * axes)
    pads = attributes.get_ints("pads", (0,) * 2 * axes)
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "its padding depends on the size"
    if set(attributes.get_ints("dilations", (1,) * axes)) != {1}:
        return "it is dilated"
    ends = [end + stride - 1 for end, stride in zip(pads[axes:], strides, strict=True)]
    if any(end >= size for end, size in zip(ends, kernel, strict=True)):
        return "a window would begin in the padding"
    attributes["pads"] = ir.AttrInt64s("pads", [*pads[:axes], *ends])
    attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
    return None
