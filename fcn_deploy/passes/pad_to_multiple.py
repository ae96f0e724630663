"""Pads images in the graph, for a net that works only at multiples of a size."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.graph.edit import NodeWriter
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult

_MODES = {"edge": "edge", "zero": "constant"}


class PadToMultiple(Rewrite):
    """Pads `image` to multiples of a number, and crops `logits` to its size.

    What:
        Computes from the height and width how much is missing, and adds it at the bottom and the right. Everything that
        read the image reads the padded one.

    Why:
        Nets that join maps which were halved and doubled fail at other sizes, or give logits of another size.

    Before -> after:
        image -> net -> logits
        image -> Pad -> net -> Slice -> logits

    Source:
        `models.adapter`, which does the same for nets in PyTorch; numpy.pad for the modes.

    Args:
        padding: To what, and with what.
    """

    # The logits of an image of such a size stay the same; others had none.
    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, padding: Padding) -> None:
        self._padding = padding

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites a model whose first input is `image`, [N, 3, H, W], and whose first output is `logits`."""
        graph = model.graph
        image, logits = graph.inputs[0], graph.outputs[0]
        readers = [(use.node, use.idx) for use in image.uses()]
        write = NodeWriter(graph, "adopted/padding")
        size = write.add("Shape", image, suffix="size", start=2, end=4)
        divisor = write.sizes("divisor", self._padding.divisor)
        raised = write.add("Add", size, write.sizes("less_one", self._padding.divisor - 1), suffix="raised")
        wanted = write.add("Mul", write.add("Div", raised, divisor, suffix="count"), divisor, suffix="wanted")
        if self._padding.mode == "reflect":
            value = image
            for index, axis in enumerate((2, 3)):
                places = _mirrored(write, size, wanted, index)
                value = write.add("Gather", value, places, suffix=f"axis{axis}", axis=axis)
        else:
            missing = write.add("Sub", wanted, size, suffix="missing")
            pads = write.add("Concat", write.sizes("none", *[0] * 6), missing, suffix="pads", axis=0)
            value = write.add("Pad", image, pads, mode=_MODES[self._padding.mode])
        for node, position in readers:
            node.replace_input_with(position, value)
        graph.insert_before(graph[0], write.nodes)
        crop = NodeWriter(graph, "adopted/crop")
        cropped = crop.add("Slice", logits, crop.sizes("starts", 0, 0), size, crop.sizes("axes", 2, 3))
        graph.extend(crop.nodes)
        cropped.type, cropped.shape = logits.type, logits.shape
        logits.name, logits.shape, cropped.name = "adopted/padded_logits", None, logits.name
        graph.outputs[0] = cropped
        return RewriteResult(model, True)


def _mirrored(write: NodeWriter, size: ir.Value, wanted: ir.Value, index: int) -> ir.Value:
    """Writes the indices 0, 1, ..., size - 1, size - 2, ..., 0, 1, ... of one axis: numpy's `reflect`."""
    name = f"mirror{index}"
    place = write.constant(f"{name}/place", np.array(index, np.int64))
    own = write.add("Gather", size, place, suffix=f"{name}/own")
    end = write.add("Gather", wanted, place, suffix=f"{name}/end")
    zero, one, two = (write.constant(f"{name}/{number}", np.array(number, np.int64)) for number in (0, 1, 2))
    doubled = write.add("Sub", write.add("Mul", own, two, suffix=f"{name}/doubled"), two, suffix=f"{name}/turn")
    period = write.add("Max", doubled, one, suffix=f"{name}/period")
    places = write.add("Mod", write.add("Range", zero, end, one, suffix=f"{name}/range"), period, suffix=f"{name}/mod")
    return write.add("Min", places, write.add("Sub", period, places, suffix=f"{name}/back"), suffix=name)
