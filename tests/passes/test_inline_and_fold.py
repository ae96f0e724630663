"""What exporters abbreviate is written out."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.inline_and_fold import InlineAndFold
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def make():
    """A local function with Q/DQ, whose scale is a Constant node and whose zero point goes through an Identity."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    pair = helper.make_function(
        "local",
        "Pair",
        ["x", "s", "z"],
        ["y"],
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dq"),
        ],
        opsets[:1],
    )
    nodes = [
        helper.make_node("Constant", [], ["scale"], value=numpy_helper.from_array(np.array(0.1, np.float32))),
        helper.make_node("Identity", ["zero"], ["zero_again"]),
        helper.make_node("Pair", ["image", "scale", "zero_again"], ["rounded"], domain="local"),
        helper.make_node("Identity", ["rounded"], ["logits"]),
    ]
    shape = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(3, np.int8), "zero")],
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=[pair], ir_version=10)
    return parse(model.SerializeToString())


def test_scales_and_zero_points_become_constants_and_the_numbers_stay():
    model = make()
    image = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
    wanted = OnnxRuntimeBackend(serialize(model)).infer({"image": image})["logits"]
    assert InlineAndFold()(model).modified
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "DequantizeLinear"]
    for node in model.graph:
        assert [constant_of(value) for value in node.inputs[1:]] == [np.float32(0.1), 3]
    assert not model.functions
    assert [value.name for value in model.graph.outputs] == ["logits"]
    np.testing.assert_array_equal(OnnxRuntimeBackend(serialize(model)).infer({"image": image})["logits"], wanted)
    assert not InlineAndFold()(model).modified
