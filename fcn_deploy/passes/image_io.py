"""The input and output of an image engine: uint8 images as a camera gives them, and labels."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.graph.edit import NodeWriter
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

# [N, C, H, W] as they are; [N, H, W, C]; [N, C, H W].
LogitsLayout = Literal["first", "last", "flat"]


class ImageInput(Rewrite):
    """Replaces the input `image`, float32 [N, 3, H, W], by `image`, uint8 [N, H, W, 3] RGB.

    What:
        Puts before the net what the runtime would compute: channels first, the channel order of the net, and
        normalisation as `x * a + b`.

    Why:
        A camera gives bytes: a quarter of what floats take on the way to a GPU, and no work for the application.

    Before -> after:
        image (float32) -> net
        image (uint8) -> Cast -> Transpose -> Gather (BGR nets only) -> Mul -> Add -> net

    Source:
        `Normalization.affine`.

    Args:
        normalization: Of the net.
    """

    # `x * a + b` rounds in other places than `(x * scale - mean) / std`.
    tolerance: ClassVar[float | None] = 1e-6

    def __init__(self, normalization: Normalization) -> None:
        self._normalization = normalization

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the first input."""
        graph = model.graph
        old = graph.inputs[0]
        if old.dtype != ir.DataType.FLOAT or old.shape is None or old.shape.rank() != 4:
            reason = f"the input is {old.dtype} {old.shape}, not float32 [N, 3, H, W]"
            return RewriteResult(model, False, (Declined(reason),))
        batch, _, height, width = old.shape
        shape, dtype = ir.Shape([batch, height, width, 3]), ir.TensorType(ir.DataType.UINT8)
        image = ir.Value(name=old.name, shape=shape, type=dtype)
        old.name = f"{image.name}/normalized"
        graph.inputs[0] = image

        write = NodeWriter(graph, "image")
        # The Cast comes before the Transpose: TensorRT refuses to transpose uint8.
        value = write.add("Cast", image, to=ir.DataType.FLOAT)
        value = write.add("Transpose", value, perm=[0, 3, 1, 2])
        if self._normalization.color == "BGR":
            value = write.add("Gather", value, write.sizes("bgr", 2, 1, 0), axis=1)
        factor, shift = (np.array(each, np.float32).reshape(1, 3, 1, 1) for each in self._normalization.affine())
        value = write.add("Mul", value, write.constant("Mul/factor", factor))
        value = write.add("Add", value, write.constant("Add/shift", shift))
        old.replace_all_uses_with(value)
        graph.insert_before(graph[0], write.nodes)
        return RewriteResult(model, True)


class LabelOutput(Rewrite):
    """Replaces the output `logits`, [N, C, H, W], by `labels`, [N, H, W].

    What:
        Finds the class with the largest logit; of equal ones the first. Labels are uint8 up to 256 classes, else int32,
        which every backend takes. For a binary net, which has one channel, a label is 1 if the value is greater than
        the threshold, else 0.

    Why:
        One byte a pixel leaves the engine instead of a float a class.

    Before -> after:
        net -> logits
        net -> ArgMax -> Cast -> labels
        net -> Transpose -> ArgMax -> Cast -> labels (with the layout `last`)
        net -> Reshape -> ArgMax -> Cast -> Reshape -> labels (with the layout `flat`)
        net -> Squeeze -> Greater -> Cast -> labels (binary nets)

    Source:
        https://onnx.ai/onnx/operators/onnx__ArgMax.html

    Args:
        threshold: Of a binary net; None for a net with a channel for each class.
        layout: How logits lie when ArgMax is taken, which OpenVINO's time depends on: docs/openvino.md.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, threshold: float | None = None, *, layout: LogitsLayout = "first") -> None:
        self._threshold, self._layout = threshold, layout

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the first output."""
        graph = model.graph
        logits = graph.outputs[0]
        if logits.shape is None or logits.shape.rank() != 4 or not isinstance(logits.shape[1], int):
            reason = f"the output is {logits.shape}, not [N, C, H, W] with a known C"
            return RewriteResult(model, False, (Declined(reason),))
        batch, channels, height, width = logits.shape
        if self._threshold is not None and channels != 1:
            reason = f"the output has {channels} channels, and a threshold is for one"
            return RewriteResult(model, False, (Declined(reason),))
        dtype = ir.DataType.UINT8 if int(channels) <= 256 else ir.DataType.INT32  # type: ignore[arg-type]
        write = NodeWriter(graph, "labels")
        labels = self._found(write, logits, dtype)
        labels.name, labels.type, labels.shape = "labels", ir.TensorType(dtype), ir.Shape([batch, height, width])
        graph.extend(write.nodes)
        graph.outputs[0] = labels
        return RewriteResult(model, True)

    def _found(self, write: NodeWriter, logits: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Writes [N, C, H, W] to labels [N, H, W]."""
        if self._threshold is not None:
            threshold = write.constant("Greater/threshold", np.array(self._threshold, np.float32))
            above = write.add("Greater", write.add("Squeeze", logits, write.sizes("channel", 1)), threshold)
            return write.add("Cast", above, to=dtype)
        if self._layout == "first":
            return write.add("Cast", write.add("ArgMax", logits, axis=1, keepdims=0), to=dtype)
        if self._layout == "last":
            last = write.add("Transpose", logits, perm=[0, 2, 3, 1])
            return write.add("Cast", write.add("ArgMax", last, axis=3, keepdims=0), to=dtype)
        flat = write.add("Reshape", logits, write.sizes("flat/shape", 0, 0, -1), suffix="flat")
        labels = write.add("Cast", write.add("ArgMax", flat, axis=1, keepdims=0), to=dtype)  # [N, H W]
        shape = write.add("Gather", write.add("Shape", logits), write.sizes("shape/axes", 0, 2, 3))
        return write.add("Reshape", labels, shape)


def ends_in_resize(graph: ir.Graph) -> bool:
    """Returns whether the first output comes from a Resize, of which at most a part is taken."""
    value: ir.Value | None = graph.outputs[0]
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "Resize":
            return True
        value = node.inputs[0] if node.op_type in ("Slice", "Identity") else None
    return False
