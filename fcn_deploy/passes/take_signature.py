"""Gives a graph that another tool wrote the input and output of an exported model."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.shapes import Layout
from fcn_deploy.graph.edit import NodeWriter
from fcn_deploy.graph.ops import MEASURING, REARRANGING
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult

_FLOAT = ir.DataType.FLOAT
_DIMS = ("batch", "height", "width")
# torch's `interpolate`: bilinear without aligned corners, and nearest, which rounds down.
_RESIZE = {
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
}
_Dims = tuple[int | None, int | None, int | None]


class TakeImage(Rewrite):
    """Makes the one input of a graph `image`, float32 [N, 3, H, W].

    What:
        Renames the input, puts a Transpose after it if channels come last, and a Cast if it is uint8, unless all that
        reads it makes floats of it anyway. Sizes that are not fixed are called `batch`, `height` and `width`.

    Why:
        Everything that calibrates, builds and runs exported models feeds `image`.

    Before -> after:
        input_1 (uint8 [1, ?, ?, 3]) -> net
        image (float32 [1, 3, height, width]) -> Transpose -> Cast -> net

    Source:
        CONTRACTS, "Tensors".

    Args:
        layout: Of the input.
        sizes: Batch, height and width; None for any.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, layout: Layout, sizes: _Dims) -> None:
        self._layout = layout
        self._sizes = sizes

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the first input, which is float32 or uint8."""
        graph = model.graph
        old = graph.inputs[0]
        batch, height, width = (size or name for size, name in zip(self._sizes, _DIMS, strict=True))
        readers = [(use.node, use.idx) for use in old.uses()]
        image = ir.Value(name="image", shape=ir.Shape([batch, 3, height, width]), type=ir.TensorType(_FLOAT))
        write, value = NodeWriter(graph, "adopted/image"), image
        if self._layout == "nhwc":
            value = write.add("Transpose", value, perm=[0, 2, 3, 1])
        if old.dtype == ir.DataType.UINT8 and not _becomes_float(old):
            value = write.add("Cast", value, to=ir.DataType.UINT8)
        for node, index in readers:
            node.replace_input_with(index, value)
        graph.inputs[0] = image
        graph.insert_before(graph[0], write.nodes)
        return RewriteResult(model, True)


class TakeLogits(Rewrite):
    """Makes the one output of a graph `logits`, float32 [N, C, H, W], as large as the image.

    What:
        Renames the output, and puts after it a Transpose if channels come last, and a Resize to the size of the image
        if that is asked for.

    Why:
        Everything that compares and builds exported models reads `logits`.

    Before -> after:
        net -> Identity:0 ([1, 120, 160, 21])
        net -> Transpose -> Resize -> logits ([1, 21, height, width])

    Source:
        CONTRACTS, "Tensors"; torch.nn.functional.interpolate for the Resize.

    Args:
        layout: Of the output.
        channels: C.
        resize: How coarse logits are resized; None if they have the size of the image.
    """

    # What a Resize gives is compared with the original's output, resized by numpy.
    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, layout: Layout, channels: int, resize: ResizeMode | None = None) -> None:
        self._layout = layout
        self._channels = channels
        self._resize = resize

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the first output, once the input is `image`."""
        graph = model.graph
        image, value = graph.inputs[0], graph.outputs[0]
        write = NodeWriter(graph, "adopted/logits")
        if self._layout == "nhwc":
            value = write.add("Transpose", value, perm=[0, 3, 1, 2])
        if self._resize is not None:
            own = write.add("Shape", value, suffix="own_size", start=0, end=2)
            wanted = write.add("Shape", image, suffix="image_size", start=2, end=4)
            sizes = write.add("Concat", own, wanted, suffix="sizes", axis=0)
            value = write.add("Resize", value, None, None, sizes, **_RESIZE[self._resize])
        if value.is_graph_input():
            value = write.add("Identity", value)
        graph.extend(write.nodes)
        assert image.shape is not None
        batch, _, height, width = image.shape
        value.name, value.type = "logits", ir.TensorType(_FLOAT)
        value.shape = ir.Shape([batch, self._channels, height, width])
        graph.outputs[0] = value
        return RewriteResult(model, True)


def _becomes_float(value: ir.Value) -> bool:
    """Returns whether all that reads a uint8 tensor takes the same numbers as floats: it only moves or casts them."""
    if value.is_graph_output():
        return False
    for node, index in ((use.node, use.idx) for use in value.uses()):
        if node.op_type == "Cast" or node.op_type in MEASURING:
            continue
        moves = node.op_type in REARRANGING or node.op_type in ("Slice", "Gather")
        if not moves or index != 0 or not _becomes_float(node.outputs[0]):
            return False
    return True
