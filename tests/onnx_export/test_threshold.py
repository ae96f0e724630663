"""The threshold of a binary net."""

import logging

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import UsageError
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.onnx_export.threshold import check_threshold, chosen_threshold, warn_of_probabilities
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def spec(threshold):
    classes = 3 if threshold is None else 2
    names = tuple(map(str, range(classes)))
    return ModelSpec(
        "net", None, None, classes, names, default_palette(classes), model="n:N", geometry=None, threshold=threshold
    )


def model(*operators):
    """A chain of operators from the image to the logits; a name, or a name and its inputs after the first."""
    constants, nodes, last = [], [], "image"
    for index, (name, *inputs) in enumerate((each,) if isinstance(each, str) else each for each in operators):
        for place, value in enumerate(inputs):
            constants.append(numpy_helper.from_array(np.asarray(value), f"{index}_{place}"))
        made = "logits" if index == len(operators) - 1 else f"t{index}"
        nodes.append(helper.make_node(name, [last, *[f"{index}_{place}" for place in range(len(inputs))]], [made]))
        last = made
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "c", "height", "width"]),
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


CROP = ("Slice", [0, 0], [8, 8], [2, 3])
PROBABILITIES = [("Sigmoid",), ("HardSigmoid",), ("Relu", "Sigmoid", CROP), ("Sigmoid", "Identity", CROP, CROP)]
LOGITS = [("Relu",), ("Sigmoid", "Neg"), ("Sigmoid", ("Mul", np.float32(2))), ("Sigmoid", "Log")]


@pytest.mark.parametrize("chain", PROBABILITIES, ids=str)
def test_a_net_that_ends_in_a_sigmoid_has_a_threshold_of_one_half(chain):
    assert chosen_threshold(spec(0.0), None, ir.from_proto(model(*chain)).graph) == 0.5


@pytest.mark.parametrize("chain", LOGITS, ids=str)
def test_a_net_that_ends_in_anything_else_keeps_its_threshold(chain):
    assert chosen_threshold(spec(0.0), None, ir.from_proto(model(*chain)).graph) == 0.0


@pytest.mark.parametrize("chain", [*PROBABILITIES, *LOGITS], ids=str)
def test_what_the_user_says_counts(chain):
    graph = ir.from_proto(model(*chain)).graph
    assert chosen_threshold(spec(0.0), 0.25, graph) == 0.25
    assert chosen_threshold(spec(0.25), None, graph) == 0.25  # as the spec in a checkpoint says
    assert chosen_threshold(spec(None), None, graph) is None


def test_a_threshold_for_a_net_with_a_channel_for_each_class_is_refused():
    check_threshold(None, spec(None))
    check_threshold(0.3, spec(0.0))
    with pytest.raises(UsageError, match=r"`threshold` is for binary nets.*got a net with 3"):
        check_threshold(0.3, spec(None))


@pytest.mark.parametrize(
    ("threshold", "chain", "warned"),
    [
        (0.0, ["Sigmoid"], True),
        (0.5, ["Sigmoid"], False),
        (0.0, ["Identity"], False),
        (None, ["Sigmoid"], False),
    ],
)
def test_values_in_0_to_1_with_a_threshold_of_0_are_warned_about(threshold, chain, warned, caplog):
    with OnnxRuntimeBackend(model(*chain).SerializeToString()) as net, caplog.at_level(logging.WARNING, "fcn_deploy"):
        warn_of_probabilities(spec(threshold), net, ImageShape(1, 8, 8))
    assert ("give `threshold=0.5`" in caplog.text) is warned


@pytest.mark.parametrize(("chain", "warned"), [(["Sigmoid", ("Mul", np.float32(255))], True), (["Identity"], False)])
def test_values_that_are_never_negative_are_warned_about_too(chain, warned, caplog):
    with OnnxRuntimeBackend(model(*chain).SerializeToString()) as net, caplog.at_level(logging.WARNING, "fcn_deploy"):
        warn_of_probabilities(spec(0.0), net, ImageShape(1, 8, 8))
    assert ("no value of the net is negative" in caplog.text) is warned
    assert ("give the border" in caplog.text) is warned


@pytest.mark.parametrize("stated", [-0.5, 1, 1.5])
def test_a_threshold_that_no_probability_reaches_is_refused(stated):
    graph = ir.from_proto(model("Sigmoid")).graph
    with pytest.raises(UsageError, match=r"gives every pixel one label; got .* for a net that ends in a sigmoid"):
        chosen_threshold(spec(0.0), stated, graph)
    assert chosen_threshold(spec(0.0), stated, ir.from_proto(model("Identity")).graph) == stated


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), 1e39, True, "0.5"])
def test_what_is_no_finite_float32_is_no_threshold(threshold):
    with pytest.raises(UsageError, match="bad `threshold`"):
        ExportConfig(threshold=threshold)
