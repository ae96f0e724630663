"""Another tool's model runs as an exported model would, at the sizes that it takes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.onnx_export.foreign import read_foreign
from fcn_deploy.onnx_export.foreign_backend import ForeignBackend, ForeignLogits, resized
from tests.support.foreign_models import concatenating, net


def opened(proto, *, layout=None, resize=None, **options):
    return ForeignBackend(read_foreign(proto.SerializeToString(), "net.onnx", **options), layout, resize)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_layout_of_the_logits_is_seen_in_what_the_model_gives(layout):
    with opened(net(layout=layout)) as backend:
        assert backend.logits == ForeignLogits(layout, 5)
        image = backend.noise(ImageShape(2, 31, 44))
        assert backend.infer({"image": image})["logits"].shape == (2, 5, 31, 44)


def test_noise_is_bytes_for_a_net_that_takes_bytes():
    with opened(net(dtype="uint8")) as backend:
        noise = backend.noise(ImageShape(1, 8, 9))
    np.testing.assert_array_equal(noise, noise.astype(np.uint8))
    assert noise.dtype == np.float32


def test_coarse_logits_are_refused_with_what_resizes_them():
    with pytest.raises(InputError, match=r"smaller than the image; got output \[1, 5, 180, 240\] .*`resize_logits="):
        opened(net(enlarge=False))
    with opened(net(enlarge=False), resize="bilinear") as backend:
        assert backend.infer({"image": backend.noise(ImageShape(1, 30, 40))})["logits"].shape == (1, 5, 30, 40)


def test_one_answer_per_image_is_refused():
    proto = net(enlarge=False)
    proto.graph.node[-1].output[0] = "small"
    proto.graph.node.append(helper.make_node("GlobalAveragePool", ["small"], ["output"]))
    with pytest.raises(InputError, match=r"not give logits as large as the image; got output \[1, 5, 1, 1\]"):
        opened(proto, resize="bilinear")


def test_a_model_that_was_made_for_one_size_but_says_any_is_refused_with_that_size():
    proto = net(enlarge=False)
    proto.graph.node[-1].output[0] = "small"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 5, 40, 56]), "wanted"))
    proto.graph.node.append(helper.make_node("Resize", ["small", "", "", "wanted"], ["output"], mode="linear"))
    with pytest.raises(InputError, match=r"not give logits as large as the image; .*name it: `shape=\"1x40x56\"`"):
        opened(proto)
    with opened(proto, shape=ImageShape(1, 40, 56)) as backend:
        assert backend.logits == ForeignLogits("nchw", 5)


def test_axes_that_cannot_be_told_apart_are_asked_for():
    proto = net(sizes=(1, 5, 5))
    with pytest.raises(InputError, match="does not say which axis is that of the classes"):
        opened(proto)
    with opened(proto, layout="nchw") as backend:
        assert backend.logits == ForeignLogits("nchw", 5)


def test_logits_that_are_smaller_by_one_factor_are_not_mistaken_for_others():
    # [1, 5, 8, 12] of 64x96 might be 5x8 pixels of 12 classes.
    proto = net(sizes=(1, 64, 96), enlarge=False)
    proto.graph.node[-1].output[0] = "half"
    proto.graph.node.append(helper.make_node("AveragePool", ["half"], ["output"], kernel_shape=[4, 4], strides=[4, 4]))
    with opened(proto, resize="bilinear") as backend:
        assert backend.logits == ForeignLogits("nchw", 5)


@pytest.mark.parametrize("sizes", [(1, 10**5, 10**5), (10**9, 32, 32), (2**62, 2**62, 2**62)])
def test_images_that_no_memory_holds_are_refused(sizes):
    with pytest.raises(InputError, match=r"takes images that are too large to run it on; got \d+x\d+x\d+; expected at"):
        opened(net(sizes=sizes))


def test_logits_that_are_no_numbers_are_refused():
    proto = net()
    proto.graph.node[-1].output[0] = "finite"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(-1, np.float32), "negative"))
    proto.graph.node.append(helper.make_node("Abs", ["finite"], ["positive"]))
    proto.graph.node.append(helper.make_node("Mul", ["positive", "negative"], ["root"]))
    proto.graph.node.append(helper.make_node("Sqrt", ["root"], ["output"]))
    with pytest.raises(InputError, match=r"gives numbers that are not finite; got output with 100% NaN"):
        opened(proto)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(17, 31), (8, 12), (9, 25), (3, 5)])
def test_resizing_is_that_of_onnx(mode, size):
    own = (4, 6) if size != (3, 5) else (3, 5)
    logits = np.random.default_rng(0).normal(size=(2, 3, *own)).astype(np.float32)
    attributes = {"bilinear": {"mode": "linear"}, "nearest": {"mode": "nearest", "nearest_mode": "floor"}}[mode]
    if mode == "nearest":
        attributes["coordinate_transformation_mode"] = "asymmetric"
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", 1, [None] * 4), value("sizes", 7, [4])], [value("y", 1, [None] * 4)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    (expected,) = ReferenceEvaluator(model).run(None, {"x": logits, "sizes": np.array([2, 3, *size])})
    np.testing.assert_allclose(resized(logits, size, mode), expected, atol=1e-5)


def test_a_model_that_runs_nowhere_is_refused_with_the_librarys_words():
    proto = concatenating()
    proto.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([1, 1, 3, 3], np.float32), "twice"))
    with pytest.raises(InputError, match=r"net.onnx does not run; got .*Concat"):
        opened(proto)


def test_a_model_that_the_library_cannot_load_is_bad_input():
    proto = net()
    proto.graph.node[0].domain = "custom"
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    with pytest.raises(InputError, match="cannot load the model"):
        opened(proto)
