"""FP16 graphs become float32 ones with the same constants."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.passes.to_fp32 import ToFp32
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support import foreign_models

FP16 = ir.DataType.FLOAT16


def types(model):
    stated = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    return {value.dtype for value in (*stated, *(value for node in model.graph for value in node.outputs))}


def test_no_tensor_stays_fp16_and_the_results_differ_by_its_rounding_only():
    proto = foreign_models.net(dtype="float16")
    fed = np.random.default_rng(0).normal(size=(1, 3, 20, 28)).astype(np.float16)
    with OnnxRuntimeBackend(proto.SerializeToString()) as backend:
        expected = backend.infer({"input.1": fed})["output"].astype(np.float32)
    result = ToFp32()(parse(proto.SerializeToString()))
    assert result.modified
    assert FP16 not in types(result.model)
    with OnnxRuntimeBackend(serialize(result.model)) as backend:
        found = backend.infer({"input.1": fed.astype(np.float32)})["output"]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.01 * np.ptp(expected)


def test_constants_keep_their_values_wherever_they_stand():
    half = numpy_helper.from_array(np.array([0.1], np.float16), "half")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["inner"], value=half)],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT16, [1])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch),
            helper.make_node("Add", ["chosen", "half"], ["sum"]),
        ],
        "graph",
        [helper.make_tensor_value_info("yes", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT16, [1])],
        [half],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model = ToFp32()(parse(proto.SerializeToString())).model
    onnx.checker.check_model(onnx.load_model_from_string(serialize(model)), full_check=True)
    with OnnxRuntimeBackend(serialize(model)) as backend:
        (found,) = backend.infer({"yes": np.array(True)})["sum"]
    assert found == np.float32(np.float16(0.1)) * 2


def test_a_float32_graph_is_left_alone():
    result = ToFp32()(parse(foreign_models.net().SerializeToString()))
    assert not result.modified
    assert result.declined == (Declined("no tensor is FP16"),)
