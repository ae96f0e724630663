"""Quantisers between a float convolution and integer ones: the same integers, and nothing transposed."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.channels_last import QuantizeChannelsLast
from fcn_deploy.passes.rewrite import Declined

RANDOM = np.random.default_rng(0)


def model_of(outputs=32, *, relu=True, reader="Conv", first="Conv"):
    """A float convolution, quantised for an integer one, whose result is quantised too."""
    constants = {
        "w1": RANDOM.normal(size=(outputs, 3, 3, 3)).astype(np.float32),
        "w2": RANDOM.integers(-64, 65, (16, outputs, 3, 3)).astype(np.int8),
        "fine": np.float32(0.01), "coarse": np.float32(0.05), "zero": np.uint8(0), "signed": np.int8(0),
    }  # fmt: skip
    last = "rectified" if relu else "c1"
    nodes = [
        helper.make_node(first, ["image", "w1"] if first == "Conv" else ["image"], ["c1"], "c1",
                         **({"pads": [1] * 4} if first == "Conv" else {})),
        *([helper.make_node("Relu", ["c1"], ["rectified"], "relu")] if relu else []),
        helper.make_node("QuantizeLinear", [last, "coarse", "zero"], ["q1"], "q1"),
        helper.make_node("DequantizeLinear", ["q1", "coarse", "zero"], ["d1"], "d1"),
        helper.make_node("DequantizeLinear", ["w2", "fine", "signed"], ["dw"], "dw"),
        helper.make_node("Conv", ["d1", "dw"], ["c2"], "c2", pads=[1] * 4),
        *([helper.make_node("Add", ["d1", "d1"], ["sum"], "sum")] if reader == "Add" else []),
        helper.make_node("QuantizeLinear", ["c2", "coarse", "zero"], ["q2"], "q2"),
        helper.make_node("DequantizeLinear", ["q2", "coarse", "zero"], ["logits"], "d2"),
    ]  # fmt: skip
    extra = (
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", outputs, "h", "w"])] if reader == "Add" else []
    )
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 16, "h", "w"]), *extra],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def rewritten(model):
    result = QuantizeChannelsLast()(parse(model.SerializeToString()))
    return serialize(result.model), result


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 5, 13)])
def test_the_integers_are_the_same(relu, shape):
    model = model_of(relu=relu)
    data, result = rewritten(model)
    assert result.modified
    assert result.declined == ()
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    expected, found = (
        ort.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]
        for each in (model.SerializeToString(), data)
    )
    np.testing.assert_array_equal(found, expected)


def test_onnx_runtime_then_transposes_no_bytes_and_still_multiplies_integers(tmp_path):
    kinds = {}
    for name, data in (("plain", model_of().SerializeToString()), ("rewritten", rewritten(model_of())[0])):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        kinds[name] = [node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node]
    for found in kinds.values():
        assert "QLinearConv" in found
    # One is left: that of the integer result, to [N, C, H, W]. CPUs whose maps are not blocked have nothing to gain.
    if "ReorderOutput" in kinds["plain"]:
        assert kinds["rewritten"].count("Transpose") == kinds["plain"].count("Transpose") - 1 == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"outputs": 24}, "its channels do not fill blocks of 16"),
        ({"reader": "Add"}, "something other than convolutions reads it"),
    ],
    ids=["blocks", "sum"],
)
def test_a_quantiser_that_would_gain_nothing_is_declined(options, reason):
    data, result = rewritten(model_of(**options))
    assert not result.modified
    assert result.declined == (Declined(reason, "q1"),)
    assert "Flatten" not in [node.op_type for node in onnx.load_model_from_string(data).graph.node]


def test_the_quantiser_of_the_image_is_not_looked_at():
    result = rewritten(model_of(first="Identity", relu=False, outputs=3))[1]
    assert not result.modified
    assert result.declined == ()
