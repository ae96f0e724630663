"""Finds labels before logits are put in their places."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.graph.edit import NodeWriter, constant_of, optional_input
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

_SPATIAL = {2, 3}


class EarlyArgmax(Rewrite):
    """Moves the ArgMax at the end of a graph before the nodes that only move logits of [N, C, H, W].

    What:
        Finds the class with the largest logit first, and puts labels in their places instead of logits. It works on
        the ArgMax and Cast that `LabelOutput` writes.

    Why:
        One byte a pixel is moved then, not a float a class. The last steps of a net often only move logits: a
        DepthToSpace, which `RewriteUpsampling` writes for a transposed convolution, and crops. They move all classes of
        a pixel together, so the ArgMax may come first.

    Before -> after:
        Conv -> DepthToSpace -> Slice -> ArgMax -> Cast
        Conv -> Reshape -> ArgMax (of each phase) -> Cast -> Reshape, Transpose (to their places) -> Slice -> Squeeze

    Source:
        Measured: docs/performance.md; for TensorRT docs/tensorrt-graphs.md.

    Args:
        crops_only: Whether it moves before crops alone, not before a DepthToSpace.
        cropped_as: The type of labels while they are cropped; their own if None. TensorRT only casts uint8 from floats,
            and does nothing else with it.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, *, crops_only: bool = False, cropped_as: ir.DataType | None = None) -> None:
        self._crops_only, self._cropped_as = crops_only, cropped_as

    def call(self, model: ir.Model) -> RewriteResult:
        """Moves the ArgMax of the first output."""
        graph = model.graph
        cast = graph.outputs[0].producer()
        argmax = cast.inputs[0].producer() if cast is not None and cast.op_type == "Cast" and cast.inputs[0] else None
        if cast is None or argmax is None or argmax.op_type != "ArgMax":
            return RewriteResult(model, False, (Declined("the output is not the Cast of an ArgMax"),))
        crops = _crops(argmax)
        placed = None if self._crops_only else _depth_to_space(crops[0] if crops else argmax)
        if not crops and placed is None:
            return RewriteResult(model, False, (Declined("no node before it only moves logits", argmax.name),))
        to = ir.DataType(cast.attributes.get_int("to", 0))
        carried = self._cropped_as if self._cropped_as is not None and to == ir.DataType.UINT8 else to
        _move(graph, (cast, argmax, placed), crops, carried)
        return RewriteResult(model, True)


def _move(
    graph: ir.Graph, replaced: tuple[ir.Node, ir.Node, ir.Node | None], crops: list[ir.Node], dtype: ir.DataType
) -> None:
    """Replaces Cast, ArgMax and DepthToSpace; labels are cropped as `dtype`."""
    placed = replaced[-1]
    labels = graph.outputs[0]
    write = NodeWriter(graph, "labels")
    if placed is not None:
        value = _labels_of_phases(write, placed, dtype)
    else:
        value = _labels_of_pixels(write, crops[0].inputs[0], dtype)
    graph.extend(write.nodes)
    for crop in crops:
        crop.replace_input_with(0, value)
        value = crop.outputs[0]
        value.type, value.shape = ir.TensorType(dtype), None
        graph.remove(crop)
        graph.append(crop)
    written = len(write.nodes)
    found = write.add("Squeeze", value, write.sizes("axis", 1))
    if dtype != labels.dtype:
        found = write.add("Cast", found, suffix="Cast_to_labels", to=labels.dtype)
    found.type, found.shape = labels.type, labels.shape
    graph.extend(write.nodes[written:])
    graph.outputs[0] = found
    graph.remove([node for node in replaced if node is not None], safe=True)
    found.name, labels.name = labels.name, None


def _crops(argmax: ir.Node) -> list[ir.Node]:
    """The Slices of rows and columns right before the ArgMax, in order."""
    crops: list[ir.Node] = []
    reader = argmax
    while True:
        crop = _only_source(reader, "Slice")
        axes = constant_of(optional_input(crop, 3)) if crop is not None else None
        if crop is None or axes is None or not set(axes.tolist()) <= _SPATIAL:
            return crops[::-1]
        crops.append(crop)
        reader = crop


def _depth_to_space(reader: ir.Node) -> ir.Node | None:
    """The DepthToSpace right before a node, if its phases lie within the classes: mode CRD."""
    placed = _only_source(reader, "DepthToSpace")
    return placed if placed is not None and placed.attributes.get_string("mode", "DCR") == "CRD" else None


def _only_source(reader: ir.Node, operator: str) -> ir.Node | None:
    """The node that makes the first input of `reader`, if it is such an operator and nothing else reads its output."""
    value = reader.inputs[0]
    producer = value.producer() if value is not None else None
    if value is None or producer is None or producer.op_type != operator or value.is_graph_output():
        return None
    return producer if all(use.node is reader for use in value.uses()) else None


def _labels_of_pixels(write: NodeWriter, logits: ir.Value | None, dtype: ir.DataType) -> ir.Value:
    """Writes [N, C, H, W] to [N, 1, H, W]."""
    return write.add("Cast", write.add("ArgMax", logits, axis=1, keepdims=1), to=dtype)


def _labels_of_phases(write: NodeWriter, placed: ir.Node, dtype: ir.DataType) -> ir.Value:
    """Writes [N, C s s, h, w] to [N, 1, h s, w s], with labels where DepthToSpace of s in mode CRD puts logits."""
    block = placed.attributes.get_int("blocksize", 1)
    logits = placed.inputs[0]
    size = write.add("Shape", logits, suffix="size", start=2)
    batch = write.add("Shape", logits, suffix="batch", start=0, end=1)
    phases = write.sizes("classes_of_phases", -1, block * block)
    by_class = write.add(
        "Reshape", logits, write.add("Concat", batch, phases, size, suffix="phases_shape", axis=0), suffix="phases"
    )
    labels = write.add("Cast", write.add("ArgMax", by_class, axis=1, keepdims=0), to=dtype)  # [N, s s, h, w]
    # First into rows, then the rows among each other: both move blocks, which takes less time than single pixels do.
    columns = write.add("Reshape", labels, write.sizes("split", 0, block, block, -1), suffix="split_phases")
    lines = write.add("Transpose", columns, suffix="lines", perm=[0, 1, 3, 2])
    wide = write.add("Mul", size, write.sizes("wide", 1, block), suffix="wide_size")
    rows_shape = write.add("Concat", batch, write.sizes("rows_of_phases", block), wide, suffix="rows_shape", axis=0)
    rows = write.add("Reshape", lines, rows_shape, suffix="rows")
    in_turn = write.add("Transpose", rows, suffix="in_turn", perm=[0, 2, 1, 3])
    whole = write.add("Mul", size, write.sizes("block", block, block), suffix="whole_size")
    whole_shape = write.add("Concat", batch, write.sizes("one", 1), whole, suffix="whole_shape", axis=0)
    return write.add("Reshape", in_turn, whole_shape, suffix="placed")
