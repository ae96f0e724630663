"""Another tool's model runs as an exported model would, at the sizes that it takes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import parse
from fcn_deploy.onnx_export.foreign import read_foreign
from fcn_deploy.onnx_export.foreign_backend import ForeignBackend, ForeignLogits, resized, sizes_taken
from fcn_deploy.passes import pipelines
from tests.support.foreign_models import net


def opened(proto, *, layout=None, resize=None, **options):
    return ForeignBackend(read_foreign(proto.SerializeToString(), "net.onnx", **options), layout, resize)


def taken(proto, resize=None):
    foreign = read_foreign(proto.SerializeToString(), "net.onnx")
    with ForeignBackend(foreign, None, resize) as backend:
        lowering = pipelines.adopted(
            foreign.image.layout, foreign.image.sizes, backend.logits.layout, backend.logits.channels, resize
        )
        return sizes_taken(backend, foreign.image, lowering(foreign.model).model)


def window(side):
    """A net whose first convolution needs `side` pixels; what it cuts off is padded again."""
    proto = net(enlarge=False)
    del proto.graph.node[1:]
    weights = np.ones((5, 3, side, side), np.float32)
    proto.graph.node[0].CopyFrom(helper.make_node("Conv", ["input.1", "w"], ["small"]))
    pads = [0, 0, 0, 0, 0, 0, side - 1, side - 1]
    proto.graph.node.append(helper.make_node("Pad", ["small", "pads"], ["output"]))
    proto.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(pads, np.int64), "pads"))
    return proto


def concatenating():
    """A net that works at even sizes only."""
    proto = net(enlarge=False)
    none = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")
    proto.graph.initializer.append(none)
    proto.graph.node[-1].output[0] = "small"
    proto.graph.node.append(helper.make_node("Resize", ["small", "", "twice"], ["large"], mode="nearest"))
    proto.graph.node.append(helper.make_node("Concat", ["large", "stem_relu"], ["output"], axis=1))
    return proto


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


def test_axes_that_cannot_be_told_apart_are_asked_for():
    proto = net(sizes=(1, 5, 5))
    with pytest.raises(InputError, match="does not say which axis is that of the classes"):
        opened(proto)
    with opened(proto, layout="nchw") as backend:
        assert backend.logits == ForeignLogits("nchw", 5)


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


def test_a_model_that_takes_every_size_is_compared_at_small_odd_and_real_ones():
    shapes, min_size = taken(net())
    assert min_size == (1, 1)
    assert {ImageShape(1, 1, 1), ImageShape(3, 65, 97), ImageShape(1, 360, 480)} <= set(shapes)


def test_fixed_sizes_are_the_only_ones():
    assert taken(net(sizes=(2, 20, 24))) == ([ImageShape(2, 20, 24)], (1, 1))
    shapes, min_size = taken(net(sizes=(1, "h", "w")))
    assert {shape.batch for shape in shapes} == {1}
    assert min_size == (1, 1)


@pytest.mark.parametrize("side", [2, 7, 40])
def test_the_smallest_size_is_found(side):
    shapes, min_size = taken(window(side))
    assert min_size == (side, side)
    assert shapes[0] == ImageShape(1, side, side)


def test_a_model_that_says_any_size_and_takes_some_is_refused():
    with pytest.raises(InputError, match=r"does not work at every size.*got at 1x33x64: .*fix: adopt it for one size"):
        taken(concatenating())


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


def test_a_parsed_model_is_left_whole():
    proto = net()
    read_foreign(proto.SerializeToString(), "net.onnx")
    assert len(parse(proto.SerializeToString()).graph) == len(proto.graph.node)
