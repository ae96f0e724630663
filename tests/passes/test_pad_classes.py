"""Classes padded to eights: the same labels, and nothing else padded than what makes scores."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.early_argmax import EarlyArgmax
from fcn_deploy.passes.image_io import LabelOutput
from fcn_deploy.passes.pad_classes import PadClasses
from fcn_deploy.passes.rewrite import Declined

LOWEST = -65504.0


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def model_of(nodes, classes, **constants):
    made = [
        helper.make_node(kind, inputs.split(), [output], f"n_{output}", **rest) for kind, inputs, output, rest in nodes
    ]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes, "height", "width"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


CROP = {"first": np.array([1, 0]), "last": np.array([-1, 10**6]), "axes": np.array([2, 3])}


def skip_net(classes, bias=True, **more):
    """Scores of two layers, the coarser upsampled and cropped, their sum upsampled, as in an FCN-16s."""
    with_bias = (lambda name: f" {name}") if bias else (lambda name: "")
    nodes = [
        ("Conv", "image wf", "features", {"strides": [2, 2]}),
        ("Relu", "features", "rectified", {}),
        ("Conv", f"rectified ws{with_bias('bs')}", "scores", {}),
        ("ConvTranspose", f"scores wu{with_bias('bu')}", "up", {"strides": [2, 2]}),
        ("Slice", "up first up_last axes", "cropped", {}),
        ("Conv", f"image wk{with_bias('bs')}", "skip", {"kernel_shape": [1, 1]}),
        ("Slice", "skip zero skip_last axes", "skipped", {}),
        ("Add", "cropped skipped", "sum", {}),
        ("ConvTranspose", f"sum wl{with_bias('bl')}", "large", {"strides": [2, 2]}),
        ("Slice", "large first last axes", "logits", {}),
    ]
    biases = {"bs": random(classes), "bu": random(classes), "bl": random(classes)} if bias else {}
    sizes = {"up_last": np.array([5, 4]), "skip_last": np.array([4, 4]), "zero": np.array([0, 0])}
    weights = {
        "wf": random(4, 3, 2, 2), "ws": random(classes, 4, 1, 1), "wk": random(classes, 3, 1, 1),
        "wu": random(classes, classes, 2, 2), "wl": random(classes, classes, 2, 2),
    }  # fmt: skip
    return model_of(nodes, classes, **weights, **biases, **sizes, **CROP, **more)


def labels(model, image):
    return ort.InferenceSession(serialize(model), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


def labelled(data, *passes):
    model = LabelOutput()(parse(data)).model
    for each in passes:
        each(model)
    return model


@settings(max_examples=20, deadline=None)
@given(classes=st.integers(2, 17), bias=st.booleans(), seed=st.integers(0, 100), early=st.booleans())
def test_labels_stay_the_same(classes, bias, seed, early):
    data = skip_net(classes, bias)
    image = np.random.default_rng(seed).normal(size=(2, 3, 8, 8)).astype(np.float32)
    passes = [EarlyArgmax(crops_only=True)] if early else []
    plain, padded = labelled(data, *passes), labelled(data, *passes)
    assert PadClasses(LOWEST)(padded).modified == (classes % 8 != 0)
    np.testing.assert_array_equal(labels(padded, image), labels(plain, image))


def test_every_layer_of_scores_gets_channels_and_the_features_stay():
    model = labelled(skip_net(11), PadClasses(LOWEST))
    weights = {node.name: constant_of(node.inputs[1]) for node in model.graph if node.op_type.startswith("Conv")}
    assert {name: array.shape[:2] for name, array in weights.items()} == {
        "n_features": (4, 3),
        "n_scores": (16, 4),
        "n_up": (16, 16),
        "n_skip": (16, 3),
        "n_large": (16, 16),
    }
    biases = {node.name: constant_of(node.inputs[2]) for node in model.graph if len(node.inputs) == 3}
    assert {name: set(array[11:].tolist()) for name, array in biases.items() if name != "n_large"} == {
        "n_scores": {0.0},
        "n_up": {0.0},
        "n_skip": {0.0},
    }
    assert set(biases["n_large"][11:].tolist()) == {LOWEST}


def test_a_net_whose_logits_are_all_the_lowest_number_has_the_first_class():
    nodes = [("Conv", "image w b", "logits", {})]
    data = model_of(nodes, 3, w=np.zeros((3, 3, 1, 1), np.float32), b=np.full(3, LOWEST, np.float32))
    model = labelled(data, PadClasses(LOWEST))
    assert not labels(model, np.zeros((1, 3, 2, 2), np.float32)).any()


def test_a_transposed_convolution_of_features_keeps_its_input():
    nodes = [
        ("Conv", "image wf", "features", {}),
        ("ConvTranspose", "features wl", "logits", {"strides": [2, 2]}),
    ]
    data = model_of(nodes, 3, wf=random(6, 3, 1, 1), wl=random(6, 3, 2, 2))
    model = labelled(data, PadClasses(LOWEST))
    weights = {node.name: constant_of(node.inputs[1]).shape for node in model.graph if node.op_type.startswith("Conv")}
    assert weights == {"n_features": (6, 3, 1, 1), "n_logits": (6, 8, 2, 2)}
    image = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(labels(model, image), labels(labelled(data), image))


CONV = ("Conv", "image w", "scores", {})


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([CONV, ("Softmax", "scores", "logits", {"axis": 1})], "more than convolutions"),
        ([CONV, ("Add", "scores scores", "logits", {})], None),
        ([CONV, ("Relu", "scores", "r", {}), ("Add", "scores r", "logits", {})], "more than convolutions"),
        (
            [CONV, ("Slice", "scores one three one", "cut", {}), ("Add", "cut cut", "logits", {})],
            "more than convolutions",
        ),
        ([("Conv", "image grouped", "logits", {"group": 3})], "more than convolutions"),
    ],
)
def test_anything_else_is_left_alone(nodes, reason):
    constants = {"w": random(3, 3, 1, 1), "grouped": random(3, 1, 1, 1), "one": np.array([1]), "three": np.array([3])}
    model = labelled(model_of(nodes, 3, **constants))
    before = serialize(model)
    result = PadClasses(LOWEST)(model)
    if reason is not None:
        assert not result.modified
        assert result.declined[0].reason.startswith(reason)
        assert serialize(model) == before


@pytest.mark.parametrize("name", [None, "conv"])
def test_layers_need_no_names_of_their_own(name):
    model = labelled(skip_net(11))
    for node in model.graph:
        node.name = name
    assert PadClasses(LOWEST)(model).modified
    for node in model.graph:
        node.name = None  # ONNX Runtime does not take a name twice
    image = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(labels(model, image), labels(labelled(skip_net(11)), image))


def test_without_an_argmax_it_says_so():
    model = parse(skip_net(11))
    assert PadClasses(LOWEST)(model).declined == (Declined("the output is not the ArgMax of channels"),)
    eight = labelled(skip_net(8))
    assert PadClasses(LOWEST)(eight).declined == (Declined("8 channels are a multiple of 8", "labels/ArgMax"),)
