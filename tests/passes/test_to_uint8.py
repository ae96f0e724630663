"""Integers with a sign become integers without, and nothing else changes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.passes.to_uint8 import ToUint8
from fcn_deploy.quantization.prequantized import integer_weights
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

WEIGHTS = np.random.default_rng(0).integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)


def make(between=(), zero_points=True, zero=3, axis=0):
    """Q, what stands between, DQ, a Conv with int8 weights, and Q/DQ behind it."""
    constants = {
        "w": WEIGHTS,
        "w_scale": np.linspace(0.001, 0.01, 4, dtype=np.float32),
        "w_zero": np.zeros(4, np.int8),
        "x_scale": np.array(0.02, np.float32),
        "zero": np.array(zero, np.int8),
        "y_scale": np.array(0.05, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "fill": np.array(0, np.int8),
    }
    zeros = ["zero"] if zero_points else []
    said = {} if zero_points else {"output_dtype": TensorProto.INT8}
    nodes = [helper.make_node("QuantizeLinear", ["image", "x_scale", *zeros], ["x0"], name="x", **said)]
    for index, (op, inputs, attributes) in enumerate(between):
        nodes.append(
            helper.make_node(op, [f"x{index}", *inputs], [f"x{index + 1}"], name=f"{op}_{index}", **attributes)
        )
    nodes += [
        helper.make_node("DequantizeLinear", [f"x{len(between)}", "x_scale", *zeros], ["x"]),
        helper.make_node(
            "DequantizeLinear", ["w", "w_scale", *(["w_zero"] if zero_points else [])], ["w_f"], axis=axis
        ),
        helper.make_node("Conv", ["x", "w_f"], ["y"], name="conv"),
        helper.make_node("QuantizeLinear", ["y", "y_scale", *zeros], ["y_q"], name="y", **said),
        helper.make_node("DequantizeLinear", ["y_q", "y_scale", *zeros], ["logits"]),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "i", "j"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return parse(model.SerializeToString())


def run(model, height=9, width=11, seed=0):
    image = np.random.default_rng(seed).normal(0, 1.5, (2, 3, height, width)).astype(np.float32)
    return OnnxRuntimeBackend(serialize(model), simulate_quantization=True).infer({"image": image})["logits"]


def types(model):
    return {str(value.dtype) for node in model.graph if node.op_type == "QuantizeLinear" for value in (node.inputs[2],)}


MOVES = [
    ("MaxPool", [], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}),
    ("Transpose", [], {"perm": [0, 1, 3, 2]}),
]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(6, 20),
    st.integers(6, 20),
    st.integers(-128, 127),
    st.lists(st.sampled_from(MOVES), max_size=3),
    st.sampled_from([(), ("w",)]),
)
def test_values_stay_to_the_last_bit(height, width, zero, between, weights):
    model = make(between, zero=zero)
    wanted = run(model, height, width)
    result = ToUint8(weights)(model)
    assert result.modified
    assert result.declined == ()
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_array_equal(run(model, height, width), wanted)
    assert types(model) == {"UINT8"}
    stored = integer_weights(model.graph)["conv"]
    assert stored.dtype == (ir.DataType.UINT8 if weights else ir.DataType.INT8)
    if weights:
        np.testing.assert_array_equal(constant_of(stored).astype(int), WEIGHTS.astype(int) + 128)
    assert not ToUint8(())(model).modified


def test_zero_points_that_go_without_saying_are_said():
    model = make(zero_points=False)
    wanted = run(model)
    assert ToUint8(["w"])(model).modified
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_array_equal(run(model), wanted)
    assert types(model) == {"UINT8"}
    assert not any("output_dtype" in node.attributes for node in model.graph)


def test_weights_that_two_layers_share_are_stored_once():
    model = make()
    first = next(node for node in model.graph if node.inputs[0].name == "w")
    again = ir.node("DequantizeLinear", first.inputs, {"axis": 0}, name="again")
    again.outputs[0].name = "again"
    conv = ir.node("Conv", [model.graph.node("conv").inputs[0], again.outputs[0]], name="conv2")
    conv.outputs[0].name, conv.outputs[0].type = "more", ir.TensorType(ir.DataType.FLOAT)
    model.graph.extend([again, conv])
    model.graph.outputs.append(conv.outputs[0])
    ToUint8(["w"])(model)
    assert len({id(value) for value in integer_weights(model.graph).values()}) == 1
    assert "w/unsigned" in model.graph.initializers


@pytest.mark.parametrize("weights", [(), ("w",)])
def test_activations_that_something_fills_up_stay_as_they_are(weights):
    model = make([("Pad", ["pads", "fill"], {})])
    wanted = run(model)
    result = ToUint8(weights)(model)
    assert result.declined == (
        Declined("activations stay int8: shifted by 128, this Pad would give other values", "Pad_0"),
    )
    assert result.modified == bool(weights)
    assert types(model) == {"INT8"}
    np.testing.assert_array_equal(run(model), wanted)


def test_a_graph_without_int8_is_left_alone():
    model = ToUint8(["w"])(make()).model
    before = serialize(model)
    assert not ToUint8(["w"])(model).modified
    assert serialize(model) == before
