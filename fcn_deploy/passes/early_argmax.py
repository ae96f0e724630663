"""Finds labels before logits are put in their places: one byte a pixel is moved then, not a float a class.

The last steps of a net often only move logits: a DepthToSpace, where `rewrite_upsampling` has made a transposed
convolution one of phases, and crops. They move all classes of a pixel alike, so the class with the largest logit can be
found before them.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import add_constant, constant_of

_log = logging.getLogger(__name__)

_SPATIAL = {2, 3}


def label_early(model: ir.Model) -> tuple[ir.Model, bool]:
    """Moves the ArgMax that `give_labels` has put at the end in front of what merely moves logits of [N, C, H, W]."""
    graph = model.graph
    labels = graph.outputs[0]
    cast = labels.producer()
    argmax = cast.inputs[0].producer() if cast is not None and cast.op_type == "Cast" and cast.inputs[0] else None
    if cast is None or argmax is None or argmax.op_type != "ArgMax":
        _log.debug("label_early declines: the output is not that of an ArgMax")
        return model, False
    crops = _crops(argmax)
    source = crops[0].inputs[0] if crops else argmax.inputs[0]
    assert source is not None
    placed = _only_reader(source, "DepthToSpace", (crops or [argmax])[0])
    if placed is not None and placed.attributes.get_string("mode", "DCR") != "CRD":
        placed = None
    if not crops and placed is None:
        _log.debug("label_early: nothing in front of the ArgMax only moves logits")
        return model, False
    dtype = ir.DataType(cast.attributes.get_int("to", 0))
    value = _labels_of_phases(graph, placed, dtype) if placed is not None else _labels_of_pixels(graph, source, dtype)
    for crop in crops:
        crop.replace_input_with(0, value)
        value = crop.outputs[0]
        value.type, value.shape = ir.TensorType(dtype), None
        graph.remove(crop)
        graph.append(crop)
    squeeze = ir.node(
        "Squeeze", [value, add_constant(graph, "labels/axis", np.array([1], np.int64))], name="labels/Squeeze"
    )
    found = squeeze.outputs[0]
    found.type, found.shape = labels.type, labels.shape
    graph.append(squeeze)
    graph.outputs[0] = found
    graph.remove([node for node in (cast, argmax, placed) if node is not None], safe=True)
    found.name, labels.name = labels.name, None
    return model, True


def _crops(argmax: ir.Node) -> list[ir.Node]:
    """The Slices of rows and columns right in front of the ArgMax, in order."""
    crops: list[ir.Node] = []
    reader = argmax
    while True:
        value = reader.inputs[0]
        crop = _only_reader(value, "Slice", reader) if value is not None else None
        axes = constant_of(crop.inputs[3]) if crop is not None and len(crop.inputs) > 3 else None
        if crop is None or axes is None or not set(axes.tolist()) <= _SPATIAL:
            return crops[::-1]
        crops.append(crop)
        reader = crop


def _only_reader(value: ir.Value, operator: str, reader: ir.Node) -> ir.Node | None:
    """What makes a value, if it is such an operator and nobody else reads it."""
    producer = value.producer()
    if producer is None or producer.op_type != operator or value.is_graph_output():
        return None
    return producer if all(use.node is reader for use in value.uses()) else None


def _labels_of_pixels(graph: ir.Graph, logits: ir.Value, dtype: ir.DataType) -> ir.Value:
    """[N, C, H, W] to [N, 1, H, W]."""
    argmax = ir.node("ArgMax", [logits], {"axis": 1, "keepdims": 1}, name="labels/ArgMax")
    cast = ir.node("Cast", argmax.outputs, {"to": dtype}, name="labels/Cast")
    graph.extend([argmax, cast])
    return cast.outputs[0]


def _labels_of_phases(graph: ir.Graph, placed: ir.Node, dtype: ir.DataType) -> ir.Value:
    """[N, C s s, h, w] to [N, 1, h s, w s], as DepthToSpace of s in its mode CRD would have made [N, C, h s, w s]."""
    block = placed.attributes.get_int("blocksize", 1)
    nodes: list[ir.Node] = []

    def add(operator: str, *inputs: ir.Value | None, suffix: str, **attributes: object) -> ir.Value:
        node = ir.node(operator, inputs, attributes, name=f"labels/{suffix}")  # type: ignore[arg-type]
        node.outputs[0].name = node.name
        nodes.append(node)
        return node.outputs[0]

    def sizes(what: str, *numbers: int) -> ir.Value:
        return add_constant(graph, f"labels/{what}", np.array(numbers, np.int64))

    logits = placed.inputs[0]
    size = add("Shape", logits, suffix="size", start=2)
    batch = add("Shape", logits, suffix="batch", start=0, end=1)
    shape = add("Concat", batch, sizes("classes_of_phases", -1, block * block), size, suffix="phases_shape", axis=0)
    by_class = add("Reshape", logits, shape, suffix="phases")
    found = add("ArgMax", by_class, suffix="ArgMax", axis=1, keepdims=0)  # [N, s s, h, w]
    labels = add("Cast", found, suffix="Cast", to=dtype)
    # Into rows, then the rows among each other: either moves blocks, and takes less than single pixels do.
    columns = add("Reshape", labels, sizes("split", 0, block, block, -1), suffix="split_phases")
    lines = add("Transpose", columns, suffix="lines", perm=[0, 1, 3, 2])
    wide = add("Mul", size, sizes("wide", 1, block), suffix="wide_size")
    rows_shape = add("Concat", batch, sizes("rows_of_phases", block), wide, suffix="rows_shape", axis=0)
    rows = add("Transpose", add("Reshape", lines, rows_shape, suffix="rows"), suffix="in_turn", perm=[0, 2, 1, 3])
    whole = add("Mul", size, sizes("block", block, block), suffix="whole_size")
    whole_shape = add("Concat", batch, sizes("one", 1), whole, suffix="whole_shape", axis=0)
    whole_labels = add("Reshape", rows, whole_shape, suffix="placed")
    graph.extend(nodes)
    return whole_labels
