"""Lets the graph take uint8 images as a camera gives them, and normalise them itself."""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.graph.edit import add_constant

_log = logging.getLogger(__name__)


def take_images(model: ir.Model, normalization: Normalization) -> tuple[ir.Model, bool]:
    """Replaces the input `image`, float32 [N, 3, H, W], by `image`, uint8 [N, H, W, 3] RGB.

    In front of the net come Cast, Transpose, the channel swap for BGR nets, and `x * a + b`.
    """
    graph = model.graph
    old = graph.inputs[0]
    if old.dtype != ir.DataType.FLOAT or old.shape is None or old.shape.rank() != 4:
        _log.debug("take_images declines: the input is %s %s, not float32 [N, 3, H, W]", old.dtype, old.shape)
        return model, False
    batch, _, height, width = old.shape
    image = ir.Value(name=old.name, shape=ir.Shape([batch, height, width, 3]), type=ir.TensorType(ir.DataType.UINT8))
    old.name = f"{image.name}/normalized"
    graph.inputs[0] = image

    a, b = normalization.affine()
    scale = add_constant(graph, "image/Mul/factor", np.array(a, np.float32).reshape(1, 3, 1, 1))
    shift = add_constant(graph, "image/Add/shift", np.array(b, np.float32).reshape(1, 3, 1, 1))
    # The cast comes before the transpose: TensorRT refuses to transpose uint8.
    nodes = [
        ir.node("Cast", [image], {"to": ir.DataType.FLOAT}, name="image/Cast"),
        ir.node("Transpose", [None], {"perm": [0, 3, 1, 2]}, name="image/Transpose"),
    ]
    if normalization.color == "BGR":
        order = add_constant(graph, "image/bgr", np.array([2, 1, 0], np.int64))
        nodes.append(ir.node("Gather", [None, order], {"axis": 1}, name="image/Gather"))
    nodes.append(ir.node("Mul", [None, scale], name="image/Mul"))
    nodes.append(ir.node("Add", [None, shift], name="image/Add"))
    for before, node in pairwise(nodes):
        node.replace_input_with(0, before.outputs[0])
    for node in nodes:
        node.outputs[0].name = node.name
    old.replace_all_uses_with(nodes[-1].outputs[0])
    graph.insert_before(graph[0], nodes)
    return model, True


def give_labels(model: ir.Model) -> tuple[ir.Model, bool]:
    """Replaces the output `logits`, [N, C, H, W], by `labels`, [N, H, W].

    Labels are uint8 up to 256 classes, else int32, which every backend takes.
    """
    graph = model.graph
    logits = graph.outputs[0]
    if logits.shape is None or logits.shape.rank() != 4 or not isinstance(logits.shape[1], int):
        _log.debug("give_labels declines: the output is %s, not [N, C, H, W] with C known", logits.shape)
        return model, False
    batch, classes, height, width = logits.shape
    dtype = ir.DataType.UINT8 if int(classes) <= 256 else ir.DataType.INT32  # type: ignore[arg-type]
    argmax = ir.node("ArgMax", [logits], {"axis": 1, "keepdims": 0}, name="labels/ArgMax")
    cast = ir.node("Cast", argmax.outputs, {"to": dtype}, name="labels/Cast")
    argmax.outputs[0].name = "labels/ArgMax"
    labels = cast.outputs[0]
    labels.name = "labels"
    labels.type = ir.TensorType(dtype)
    labels.shape = ir.Shape([batch, height, width])
    graph.extend([argmax, cast])
    graph.outputs[0] = labels
    return model, True
