"""A graph that another tool wrote gets the input and output of an exported model, and gives the same values."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.take_signature import TakeImage, TakeLogits
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support import foreign_models

ANY = (None, None, None)


def lowered(proto, layout="nchw", sizes=ANY, channels=foreign_models.CLASSES, resize=None):
    model = parse(proto.SerializeToString())
    return pipelines.adopted(layout, sizes, layout, channels, resize)(model).model


def run(model, image):
    with OnnxRuntimeBackend(model if isinstance(model, bytes) else serialize(model)) as backend:
        return backend.infer({backend.inputs[0].name: image})[backend.outputs[0].name]


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def signature(model):
    return [(value.name, value.dtype, str(value.shape)) for value in (*model.graph.inputs, *model.graph.outputs)]


def test_names_types_and_dimensions_are_those_of_an_exported_model():
    model = lowered(foreign_models.net(dtype="uint8", layout="nhwc"), "nhwc")
    assert signature(model) == [
        ("image", ir.DataType.FLOAT, "[batch,3,height,width]"),
        ("logits", ir.DataType.FLOAT, "[batch,5,height,width]"),
    ]


def test_sizes_that_are_fixed_stay_numbers():
    model = lowered(foreign_models.net(sizes=(1, 32, "w")), sizes=(1, 32, None))
    assert [shape for *_, shape in signature(model)] == ["[1,3,32,width]", "[1,5,32,width]"]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_channels_last_are_put_last_again(dtype):
    proto = foreign_models.net(layout="nhwc", dtype=dtype)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 33, 20, 3)).astype(dtype)
    expected = run(proto.SerializeToString(), pixels).transpose(0, 3, 1, 2)
    found = run(lowered(proto, "nhwc"), pixels.transpose(0, 3, 1, 2).astype(np.float32))
    np.testing.assert_array_equal(found, expected)


def test_a_net_that_makes_floats_of_its_bytes_gets_floats():
    model = lowered(foreign_models.net(dtype="uint8"))
    assert {value.dtype for node in model.graph for value in node.outputs} <= {ir.DataType.FLOAT, ir.DataType.INT64}


def test_a_net_that_computes_on_bytes_gets_bytes():
    proto = foreign_models.net(dtype="uint8")
    clip = onnx.helper.make_node("Max", [proto.graph.input[0].name, "dark"], ["clipped"])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(100, np.uint8), "dark"))
    proto.graph.node[0].input[0] = "clipped"
    proto.graph.node.insert(0, clip)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16)).astype(np.uint8)
    expected = run(proto.SerializeToString(), pixels)
    np.testing.assert_array_equal(run(lowered(proto), pixels.astype(np.float32)), expected)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21])
def test_every_opset_gives_the_same(opset):
    proto = foreign_models.net(opset=opset, end="Softmax" if opset >= 13 else "Sigmoid")
    model = lowered(proto)
    assert model.opset_imports[""] == max(opset, 18)
    fed = image(1, 3, 30, 44)
    np.testing.assert_allclose(run(model, fed), run(proto.SerializeToString(), fed), atol=1e-6)


def test_names_that_an_engine_uses_are_taken_from_other_tensors_and_nodes():
    proto = foreign_models.net(image="logits", name="image", outputs=())
    renamed = {"stem_out": "labels", "score_out": "image/Cast"}
    for node in proto.graph.node:
        node.name = {"stem": "labels/Cast"}.get(node.name, node.name)
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    fed = image(1, 3, 16, 16)
    model = lowered(proto)
    np.testing.assert_array_equal(run(model, fed), run(proto.SerializeToString(), fed))
    used = {str(value.name) for node in model.graph for value in node.outputs} | {node.name for node in model.graph}
    assert used & {"labels", "labels/Cast", "image", "image/Cast", "image/Transpose"} == set()
    assert [name for name, *_ in signature(model)] == ["image", "logits"]


def test_an_output_that_is_the_input_is_still_two_tensors():
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 3, "h", "w"]))
    unused = ir.node("Relu", [value], name="unused")
    model = ir.Model(ir.Graph([value], [value], nodes=[unused], opset_imports={"": 18}), ir_version=10)
    model.graph.outputs[0] = value
    TakeLogits("nchw", 3)(TakeImage("nchw", ANY)(model).model)
    assert model.graph.outputs[0].name == "logits"
    assert model.graph.inputs[0].name == "image"


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_coarse_logits_get_the_size_of_the_image(mode):
    model = lowered(foreign_models.net(enlarge=False), resize=mode)
    assert run(model, image(2, 3, 31, 45)).shape == (2, 5, 31, 45)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(
    ("opset", "operator", "scales"),
    [(9, "Upsample", (2, 2)), (9, "Upsample", (1.5, 2.5)), (10, "Resize", (1.5, 2.5)), (10, "Resize", (0.5, 0.75))],
)
def test_resizing_of_opset_10_and_before_gives_the_same(mode, opset, operator, scales):
    proto = foreign_models.net(opset=opset, enlarge=False)
    proto.graph.node[-1].output[0] = "small"
    constant = onnx.numpy_helper.from_array(np.array([1, 1, *scales], np.float32), "scales")
    proto.graph.initializer.append(constant)
    proto.graph.node.append(onnx.helper.make_node(operator, ["small", "scales"], ["output"], mode=mode))
    fed = image(1, 3, 24, 40)
    np.testing.assert_allclose(run(lowered(proto), fed), run(proto.SerializeToString(), fed), atol=1e-6)
