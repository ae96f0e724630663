"""What makes an image engine of a model: uint8 images in, labels out."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.image_io import ImageInput, LabelOutput
from fcn_deploy.passes.rewrite import Declined, Lowering
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
    result = ImageInput(normalization)(parse(_identity()))
    model = result.model
    assert result.modified
    assert result.declined == ()
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    backend = OnnxRuntimeBackend(serialize(model))
    assert str(backend.inputs[0]) == "image: uint8 [batch, height, width, 3]"
    images = _images(*size)
    found = backend.infer({"image": images})["logits"]
    np.testing.assert_allclose(
        found, normalize(images, normalization), rtol=0, atol=ImageInput.tolerance * np.abs(found).max()
    )


@pytest.mark.parametrize("size", SIZES)
def test_labels_are_the_argmax_of_the_logits(exported, size):
    data = exported("fcn8s").read_bytes()
    spec = ModelSpec.loads(parse(data).metadata_props["fcn_deploy.spec"])
    engine = Lowering(ImageInput(spec.normalization), LabelOutput())(parse(data)).model
    onnx.checker.check_model(ir.to_proto(engine), full_check=True)
    backend = OnnxRuntimeBackend(serialize(engine))
    assert str(backend.outputs[0]) == "labels: uint8 [batch, height, width]"
    images = _images(*size)
    logits = OnnxRuntimeBackend(data).infer({"image": normalize(images, spec.normalization)})["logits"]
    np.testing.assert_array_equal(backend.infer({"image": images})["labels"], logits.argmax(1))


@pytest.mark.parametrize("layout", ["last", "flat"])
def test_labels_of_another_layout_are_the_same_and_of_equal_logits_the_first(exported, layout):
    data = exported("fcn8s").read_bytes()
    image = np.random.default_rng(0).normal(size=(2, 3, 33, 47)).astype(np.float32)
    expected, found = (
        OnnxRuntimeBackend(serialize(LabelOutput(layout=each)(parse(data)).model)).infer({"image": image})
        for each in ("first", layout)
    )
    assert found["labels"].shape == (2, 33, 47)
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    equal = OnnxRuntimeBackend(serialize(LabelOutput(layout=layout)(parse(_identity(3))).model))
    assert not equal.infer({"image": np.ones((1, 3, 4, 5), np.float32)})["labels"].any()


@pytest.mark.parametrize(("classes", "dtype"), [(256, "uint8"), (257, "int32")])
def test_labels_past_256_classes_are_int32(classes, dtype):
    result = LabelOutput()(parse(_identity(classes)))
    assert result.modified
    assert OnnxRuntimeBackend(serialize(result.model)).outputs[0].dtype == dtype


@pytest.mark.parametrize("threshold", [0.0, 0.5, -1.25])
def test_the_labels_of_a_binary_net_are_1_above_the_threshold(threshold):
    result = LabelOutput(threshold)(parse(_one_channel()))
    assert result.modified
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    backend = OnnxRuntimeBackend(serialize(result.model))
    assert str(backend.outputs[0]) == "labels: uint8 [batch, height, width]"
    values = np.float32([[[threshold, threshold + 1e-3]], [[threshold - 1e-3, np.nan]]])
    image = np.repeat(values[:, np.newaxis], 3, axis=1)
    np.testing.assert_array_equal(backend.infer({"image": image})["labels"], [[[0, 1]], [[0, 0]]])


def test_a_threshold_for_several_channels_is_declined():
    result = LabelOutput(0.0)(parse(_identity(3)))
    assert not result.modified
    assert result.declined == (Declined("the output has 3 channels, and a threshold is for one"),)


def _one_channel():
    """The red channel of the image."""
    slices = [("from", [0]), ("to", [1]), ("axes", [1])]
    graph = helper.make_graph(
        [helper.make_node("Slice", ["image", "from", "to", "axes"], ["logits"])],
        "red",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, "height", "width"])],
        [helper.make_tensor(name, TensorProto.INT64, [1], value) for name, value in slices],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_an_input_that_is_not_float32_maps_is_declined():
    result = ImageInput(Normalization())(parse(_identity(dtype=TensorProto.UINT8)))
    assert not result.modified
    assert result.declined == (Declined("the input is UINT8 [batch,3,height,width], not float32 [N, 3, H, W]"),)


def test_an_output_of_unknown_classes_is_declined():
    result = LabelOutput()(parse(_identity(classes="channels")))
    assert not result.modified
    assert result.declined == (
        Declined("the output is [batch,channels,height,width], not [N, C, H, W] with a known C"),
    )


def test_a_fixed_shape_stays_fixed():
    graph = parse(_identity())
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        value.shape = ir.Shape([2, 3, 10, 12])
    spec = ModelSpec("fcn8s", 8, 1.0, 3, tuple("abc"), default_palette(3))
    engine = Lowering(ImageInput(spec.normalization), LabelOutput())(graph).model
    assert list(engine.graph.inputs[0].shape) == [2, 10, 12, 3]
    assert list(engine.graph.outputs[0].shape) == [2, 10, 12]
