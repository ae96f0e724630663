"""Winograd's algorithm in ONNX operators: the convolution's results, at every size and batch, where it pays."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import UsageError
from fcn_deploy.graph.layers import list_layers
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.passes.winograd import Winograd, winograd_candidates, winograd_layers, winograd_nodes


def model_of(channels, outputs, *, biased=True, kernel=3, rectified=False, **attributes):
    random = np.random.default_rng(0)
    groups = attributes.get("group", 1)
    weights = random.normal(size=(outputs, channels // groups, kernel, kernel)) / np.sqrt(channels)
    constants = {"w": weights.astype(np.float32)}
    if biased:
        constants["b"] = random.normal(size=outputs).astype(np.float32)
    nodes = [helper.make_node("Conv", ["image", *constants], ["c" if rectified else "logits"], "conv", **attributes)]
    if rectified:
        nodes.append(helper.make_node("Relu", ["c"], ["logits"], "relu"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, "h", "w_"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", outputs, "h", "w_"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def rewritten(data):
    model = parse(data)
    result = Winograd(winograd_candidates(model.graph, least_channels=1))(model)
    RemoveUnusedNodesPass()(model)
    return model, result.modified


def run(data, image):
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def check(data, shape):
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    wanted, found = run(data, image), run(serialize(rewritten(data)[0]), image)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= Winograd.tolerance * max(1.0, np.ptp(wanted))


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 6),
    outputs=st.integers(1, 6),
    biased=st.booleans(),
    rectified=st.booleans(),
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
)
def test_it_gives_the_convolution_at_every_size(channels, outputs, biased, rectified, batch, size):
    data = model_of(channels, outputs, biased=biased, rectified=rectified, pads=[1] * 4)
    assert rewritten(data)[1]
    check(data, (batch, channels, *size))


def test_with_many_channels_it_stays_exact():
    check(model_of(512, 256, pads=[1] * 4), (1, 512, 45, 30))


def test_one_rewritten_model_takes_images_of_all_sizes():
    data = model_of(3, 4, pads=[1] * 4)
    session = ort.InferenceSession(serialize(rewritten(data)[0]), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 8, 8), (2, 3, 5, 33), (1, 3, 1, 1)):
        image = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(session.run(None, {"image": image})[0], run(data, image), atol=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1] * 4, "strides": [2, 2]},
        {"pads": [1] * 4, "group": 2},
        {"pads": [2] * 4, "dilations": [2, 2]},
        {"pads": [0] * 4},
        {"pads": [1, 1, 0, 0]},
        {"auto_pad": "SAME_UPPER"},
        {"pads": [1] * 4, "kernel": 5},
    ],
)
def test_other_convolutions_stay_as_they_are(attributes):
    model, changed = rewritten(model_of(4, 4, **attributes))
    assert not changed
    assert [node.op_type for node in model.graph] == ["Conv"]


@pytest.mark.parametrize(("channels", "outputs", "pays"), [(128, 128, True), (127, 128, False), (128, 127, False)])
def test_by_itself_it_takes_many_channels_on_both_sides(channels, outputs, pays):
    result = Winograd()(parse(model_of(channels, outputs, pads=[1] * 4)))
    assert result.modified is pays
    reason = "fewer than 128 channels: it would not be faster"
    assert result.declined == (() if pays else (Declined(reason, "conv"),))


def test_only_the_layers_that_are_named_are_replaced():
    assert not Winograd(())(parse(model_of(128, 128, pads=[1] * 4))).modified
    with pytest.raises(UsageError, match="for other layers; got other; expected float 3x3"):
        Winograd(("other",))(parse(model_of(3, 3, pads=[1] * 4)))


def test_nodes_without_names_are_left_alone():
    model = parse(model_of(128, 128, pads=[1] * 4, rectified=True))
    for node in model.graph:
        node.name = ""
    assert not Winograd()(model).modified


def test_what_stands_for_a_layer_is_listed_with_its_name_and_parameters():
    model, _ = rewritten(model_of(3, 16, pads=[1] * 4))
    layers = {layer.name: layer for layer in list_layers(model, ImageShape(1, 8, 12))}
    assert set(layers) == {"conv", "conv/tiles", "conv/pixels"}
    assert layers["conv"].parameters == 3 * 16 * 9
    assert layers["conv"].weights == (36, 1, 16, 3)
    assert layers["conv"].macs == 36 * 16 * 3 * (2 * 3)  # six tiles, where the convolution has 144 a tile


def test_a_layer_that_was_replaced_is_found_with_all_its_nodes():
    model, _ = rewritten(model_of(3, 16, pads=[1] * 4, rectified=True))
    assert winograd_layers(model.graph) == ("conv",)
    nodes = winograd_nodes(model.graph, "conv")
    assert "conv" in nodes
    assert set(nodes) == {node.name for node in model.graph} - {"relu"}


def test_a_matrix_product_of_the_net_s_own_is_not_taken_for_winograd_s():
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["logits"], "head")],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.ones((3, 5), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert winograd_layers(parse(model.SerializeToString()).graph) == ()
