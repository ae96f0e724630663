"""The ReLU in front of FP8 stays what it is, and ONNX Runtime still has the faults that this is for."""

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.keep_rectifiers import KeepRectifiers

IMAGE = np.array([-2, -1, -0.5, 0, 0.5, 1, 7], np.float32)
FP8 = TensorProto.FLOAT8E4M3FN
RECTIFIERS = {
    "relu": ("Relu", ["n"], ["Max"], (0, None)),
    "relu6": ("Clip", ["n", "zero", "six"], ["Max", "Min"], (0, 6)),
    "at least 0": ("Clip", ["n", "zero"], ["Max"], (0, None)),
    "at most 6": ("Clip", ["n", "", "six"], ["Min"], (None, 6)),
}


def model(number, kind="relu"):
    op, inputs, *_ = RECTIFIERS[kind]
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [at]) for name, at in (("scale", 1), ("six", 6))]
    constants.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0]))
    constants.append(helper.make_tensor("zero_point", number, [], b"\0", raw=True))
    nodes = [
        helper.make_node("Neg", ["image"], ["n"], "before"),  # ONNX Runtime leaves a rectifier of the input alone
        helper.make_node(op, inputs, ["r"], "rectifier"),
        helper.make_node("QuantizeLinear", ["r", "scale", "zero_point"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["logits"], "dq"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [7]) for name in ("image", "logits")]
    inner = [
        helper.make_tensor_value_info("r", TensorProto.FLOAT, [7]),
        helper.make_tensor_value_info("q", number, [7]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants, value_info=inner)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return parse(made.SerializeToString())


def run(graph_model):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(serialize(graph_model), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": IMAGE})[0]


@pytest.mark.parametrize("kind", RECTIFIERS)
def test_what_is_outside_the_limits_is_cut_off(kind):
    *_, written, limits = RECTIFIERS[kind]
    result = KeepRectifiers()(model(FP8, kind))
    nodes = list(result.model.graph)
    assert result.modified
    assert [node.op_type for node in nodes] == ["Neg", *written, "QuantizeLinear", "DequantizeLinear"]
    assert (nodes[len(written)].name, nodes[len(written)].outputs[0].name) == ("rectifier", "r")
    wanted = (-IMAGE).clip(*limits).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(run(result.model), wanted)


def test_onnxruntime_lets_negative_numbers_through_without_the_rewrite():
    """If this fails, ONNX Runtime was mended, and the rewrite can go when no older version is supported."""
    np.testing.assert_array_equal(run(model(FP8)), -IMAGE)


def test_onnxruntime_does_not_load_a_clip_without_the_rewrite():
    with pytest.raises(Exception, match="Unexpected data type"):
        run(model(FP8, "relu6"))


@pytest.mark.parametrize("number", [TensorProto.INT8, TensorProto.UINT8])
@pytest.mark.parametrize("kind", RECTIFIERS)
def test_integers_are_left_as_they_are(number, kind):
    graph = model(number, kind)
    assert not KeepRectifiers()(graph).modified
    assert graph.graph[1].op_type == RECTIFIERS[kind][0]


def test_a_clip_without_limits_is_left_as_it_is():
    graph = model(FP8, "relu6")
    graph.graph[1].resize_inputs(1)
    KeepRectifiers()(graph)
    assert graph.graph[1].op_type == "Clip"
