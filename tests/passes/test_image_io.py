"""The passes that make a tensor model an image engine."""

import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.image_io import give_labels, take_images
from fcn_deploy.runtime.image import normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

SIZES = [(1, 1, 1), (1, 33, 47), (3, 20, 64)]
CAFFE = Normalization("BGR", 1.0, (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))


def _images(batch, height, width):
    return np.random.default_rng(height).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def _identity(classes=3, dtype=TensorProto.FLOAT):
    dims = ["batch", classes, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])],
        "identity",
        [helper.make_tensor_value_info("image", dtype, dims)],
        [helper.make_tensor_value_info("logits", dtype, dims)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


@pytest.mark.parametrize("normalization", [Normalization(), CAFFE], ids=["torchvision", "caffe"])
@pytest.mark.parametrize("size", SIZES)
def test_the_graph_normalises_as_the_runtime_does(normalization, size):
    model, changed = take_images(parse(_identity()), normalization)
    assert changed
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    backend = OnnxRuntimeBackend(serialize(model))
    assert str(backend.inputs[0]) == "image: uint8 [batch, height, width, 3]"
    images = _images(*size)
    found = backend.infer({"image": images})["logits"]
    np.testing.assert_allclose(found, normalize(images, normalization), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_labels_are_the_argmax_of_the_logits(exported, size):
    data = exported("fcn8s").read_bytes()
    spec = ModelSpec.loads(parse(data).metadata_props["fcn_deploy.spec"])
    engine = pipelines.run(parse(data), pipelines.image_io(spec))
    onnx.checker.check_model(ir.to_proto(engine), full_check=True)
    backend = OnnxRuntimeBackend(serialize(engine))
    assert str(backend.outputs[0]) == "labels: uint8 [batch, height, width]"
    images = _images(*size)
    logits = OnnxRuntimeBackend(data).infer({"image": normalize(images, spec.normalization)})["logits"]
    np.testing.assert_array_equal(backend.infer({"image": images})["labels"], logits.argmax(1))


@pytest.mark.parametrize(("classes", "dtype"), [(256, "uint8"), (257, "int32")])
def test_labels_past_256_classes_are_int32(classes, dtype):
    model, changed = give_labels(parse(_identity(classes)))
    assert changed
    assert OnnxRuntimeBackend(serialize(model)).outputs[0].dtype == dtype


def test_both_decline_what_is_no_exported_net_and_say_why(caplog):
    with caplog.at_level(logging.DEBUG, "fcn_deploy"):
        assert take_images(parse(_identity(dtype=TensorProto.UINT8)), Normalization())[1] is False
        assert give_labels(parse(_identity(classes="channels")))[1] is False
    assert "take_images declines: the input is UINT8" in caplog.text
    assert "give_labels declines: the output is" in caplog.text


def test_a_fixed_shape_stays_fixed():
    graph = parse(_identity())
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        value.shape = ir.Shape([2, 3, 10, 12])
    spec = ModelSpec("fcn8s", 8, 1.0, 3, tuple("abc"), default_palette(3))
    engine = pipelines.run(graph, pipelines.image_io(spec))
    assert list(engine.graph.inputs[0].shape) == [2, 10, 12, 3]
    assert list(engine.graph.outputs[0].shape) == [2, 10, 12]
