"""ONNX models as other tools leave them: other names, layouts, types, opsets and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


class Writer:
    """Collects the nodes and constants of a graph."""

    def __init__(self, dtype: str = "float32") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.dtype = dtype
        self._random = np.random.default_rng(3)

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def conv(self, value: str, outputs: int, inputs: int, kernel: int, name: str, **attributes: object) -> str:
        deviation = (2 / (inputs * kernel * kernel)) ** 0.5
        weights = self._random.normal(0, deviation, (outputs, inputs, kernel, kernel)).astype(self.dtype)
        bias = self._random.normal(0, 0.1, outputs).astype(self.dtype)
        named = self.constant(f"{name}.weight", weights), self.constant(f"{name}.bias", bias)
        pads = [kernel // 2] * 4
        return self.add("Conv", value, *named, output=f"{name}_out", name=name, pads=pads, **attributes)


def net(
    *,
    opset: int = 17,
    dtype: str = "float32",
    image: str = "input.1",
    layout: str = "nchw",
    sizes: Sequence[int | str | None] = ("n", "h", "w"),
    classes: int = CLASSES,
    enlarge: bool = True,
    end: str | None = None,
    outputs: Sequence[str] = (),
    name: str = "output",
) -> onnx.ModelProto:
    """Makes a small segmentation net.

    Args:
        opset: 11 or later.
        dtype: Of the input; a net that takes uint8 normalises images itself.
        image: The input's name.
        layout: Of input and output, `nchw` or `nhwc`.
        sizes: Batch, height and width.
        classes: Channels of the logits.
        enlarge: Whether the logits have the size of the image; else half of it.
        end: An operator after the logits: `ArgMax`, `Softmax` or `Sigmoid`.
        outputs: Names of further tensors that are outputs, before the last.
        name: Of the last output.
    """
    write = Writer("float32" if dtype == "uint8" else dtype)
    value = image
    if dtype == "uint8":
        value = write.add("Cast", value, output="bytes", to=TensorProto.FLOAT)
        value = write.add("Div", value, write.constant("255", np.array(255, np.float32)), output="scaled")
    if layout == "nhwc":
        value = write.add("Transpose", value, output="first", perm=[0, 3, 1, 2])
    whole = value
    value = write.add("Relu", write.conv(value, 8, 3, 3, "stem"), output="stem_relu")
    value = write.add("MaxPool", value, output="pooled", kernel_shape=[2, 2], strides=[2, 2])
    value = write.add("Relu", write.conv(value, 8, 8, 3, "middle"), output="middle_relu")
    value = write.add("Relu", write.conv(value, 8, 8, 3, "late"), output="late_relu")
    value = write.conv(value, classes, 8, 1, "score")
    if enlarge:
        shape, own = write.add("Shape", whole, output="size"), write.add("Shape", value, output="score_size")
        ends = [write.constant(f"end{end}", np.array([end], np.int64)) for end in (0, 2, 4)]
        height_width = write.add("Slice", shape, ends[1], ends[2], output="height_width")
        batch_classes = write.add("Slice", own, ends[0], ends[1], output="batch_classes")
        wanted = write.add("Concat", batch_classes, height_width, output="wanted", axis=0)
        none = write.constant("none", np.zeros(0, np.float32))
        if write.dtype == "float16":
            value = write.add("Cast", value, output="score_float", to=TensorProto.FLOAT)
        value = write.add("Resize", value, none, none, wanted, output="large", mode="linear")
        if write.dtype == "float16":
            value = write.add("Cast", value, output="large_half", to=TensorProto.FLOAT16)
    if layout == "nhwc":
        value = write.add("Transpose", value, output="last", perm=[0, 2, 3, 1])
    channels, kind = (3 if layout == "nhwc" else 1), _TYPES[write.dtype]
    if end is not None:
        attributes = {} if end == "Sigmoid" else {"axis": channels}
        value = write.add(end, value, output=f"{end}_out", **attributes)
    write.nodes[-1].output[0] = name
    given = [*sizes[:1], 3, *sizes[1:]] if layout == "nchw" else [*sizes, 3]
    unknown = [None] * 4  # sizes, as some tools leave them
    last = helper.make_tensor_value_info(name, TensorProto.INT64 if end == "ArgMax" else kind, unknown)
    further = [helper.make_tensor_value_info(each, kind, unknown) for each in outputs]
    graph = helper.make_graph(
        write.nodes,
        "graph",
        [helper.make_tensor_value_info(image, _TYPES[dtype], given)],
        [*further, last],
        write.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.producer_name, model.producer_version = "another tool", "1.2"
    return model


def concatenating(stride: int = 2) -> onnx.ModelProto:
    """A net that works at multiples of its stride only."""
    proto = net(enlarge=False)
    for attribute in proto.graph.node[2].attribute:
        attribute.ints[:] = [stride, stride]
    none = numpy_helper.from_array(np.array([1, 1, stride, stride], np.float32), "twice")
    proto.graph.initializer.append(none)
    proto.graph.node[-1].output[0] = "small"
    proto.graph.node.append(helper.make_node("Resize", ["small", "", "twice"], ["large"], mode="nearest"))
    proto.graph.node.append(helper.make_node("Concat", ["large", "stem_relu"], ["output"], axis=1))
    return proto


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Writes a model, and returns the path."""
    onnx.save(model, path)
    return path
