"""Which sizes a model of another tool takes: tried, not believed."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from fcn_deploy.artifacts.geometry import AutoPadding, Padding
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.onnx_export.foreign import read_foreign
from fcn_deploy.onnx_export.foreign_backend import ForeignBackend
from fcn_deploy.onnx_export.foreign_sizes import check_batch, padding_needed, sizes_taken, smallest_divisor
from fcn_deploy.passes import pipelines
from tests.support.foreign_models import concatenating, net


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
    with pytest.raises(InputError, match=r"at every size.*got at 1x33x64: .*fix: add `size_divisor=2`, the small"):
        taken(concatenating())


def test_a_batch_that_is_part_of_the_model_is_refused_with_the_shape_that_it_takes():
    proto = net(sizes=("n", 40, 56))
    proto.graph.node[-1].output[0] = "large"
    proto.graph.node.append(helper.make_node("Reshape", ["large", "whole"], ["output"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 5, 40, 56]), "whole"))
    with pytest.raises(InputError, match=r"got at 3x40x56: .*fix: adopt it for one size.*`shape=\"1x40x56\"`"):
        taken(proto)


def needed(proto, wanted):
    foreign = read_foreign(proto.SerializeToString(), "net.onnx")
    with ForeignBackend(foreign) as backend:
        return padding_needed(backend, foreign.image, wanted)


def test_the_padding_that_a_model_needs_is_found_and_none_if_it_needs_none():
    assert needed(concatenating(), AutoPadding("zero")) == Padding(2, "zero")
    assert needed(net(), AutoPadding()) is None
    assert needed(net(), None) is None


@pytest.mark.parametrize("stride", [4, 6, 7])
def test_the_smallest_divisor_need_not_be_a_power_of_two(stride):
    foreign = read_foreign(concatenating(stride).SerializeToString(), "net.onnx")
    with ForeignBackend(foreign) as backend:
        assert smallest_divisor(backend, foreign.image) == stride


def test_a_divisor_that_does_not_help_is_refused_with_one_that_does():
    foreign = read_foreign(concatenating().SerializeToString(), "net.onnx")
    with ForeignBackend(foreign) as backend:
        backend.padding = Padding(3)
        lowering = pipelines.adopted(
            "nchw", foreign.image.sizes, "nchw", backend.logits.channels, None, backend.padding
        )
        with pytest.raises(InputError, match=r"not work at every size.*fix: add `size_divisor=2`"):
            sizes_taken(backend, foreign.image, lowering(foreign.model).model)


def test_padding_that_a_model_does_not_need_is_warned_about(caplog):
    assert needed(concatenating(), Padding(4)) == Padding(4)
    assert "without `size_divisor`" not in caplog.text
    assert needed(net(), Padding(4)) == Padding(4)
    assert "takes every size from some smallest one on, without `size_divisor`" in caplog.text


def test_a_padded_model_takes_every_size():
    foreign = read_foreign(concatenating().SerializeToString(), "net.onnx")
    with ForeignBackend(foreign) as backend:
        backend.padding = Padding(2)
        channels = backend.logits.channels
        model = pipelines.adopted("nchw", foreign.image.sizes, "nchw", channels, None, Padding(2))(foreign.model).model
        shapes, min_size = sizes_taken(backend, foreign.image, model)
    assert min_size == (1, 1)
    assert ImageShape(3, 65, 97) in shapes


def in_training_mode():
    proto = net()
    proto.graph.node[-1].output[0] = "large"
    random = np.random.default_rng(0)
    names = ["factor", "offset", "average", "variance"]
    for name in names:
        proto.graph.initializer.append(numpy_helper.from_array(random.uniform(0.5, 2, 5).astype(np.float32), name))
    outputs = ["output", "new_average", "new_variance"]
    proto.graph.node.append(helper.make_node("BatchNormalization", ["large", *names], outputs, training_mode=1))
    return proto


def random():
    proto = net(sizes=(1, "h", "w"))
    proto.graph.node[-1].output[0] = "large"
    proto.graph.node.append(helper.make_node("RandomNormalLike", ["large"], ["noise"]))
    proto.graph.node.append(helper.make_node("Add", ["large", "noise"], ["output"]))
    return proto


@pytest.mark.parametrize(("proto", "batch"), [(in_training_mode(), 3), (random(), 1)], ids=["mixed", "random"])
def test_logits_that_do_not_depend_on_their_image_alone_are_refused(proto, batch):
    with (
        ForeignBackend(read_foreign(proto.SerializeToString(), "net.onnx")) as backend,
        pytest.raises(InputError, match="mixes the images of a batch, or gives another result each time; got logits"),
    ):
        check_batch(backend, [ImageShape(1, 33, 64), ImageShape(batch, 40, 56)], 1e-3)


def test_logits_that_depend_on_their_image_alone_pass():
    with ForeignBackend(read_foreign(net().SerializeToString(), "net.onnx")) as backend:
        check_batch(backend, [ImageShape(1, 33, 64), ImageShape(3, 40, 56)], 1e-3)
