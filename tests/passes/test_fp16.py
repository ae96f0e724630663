"""FP16: what is retyped and what is not, what ONNX Runtime makes of it, and the rounding that is made explicit."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.fp16 import ToFp16
from fcn_deploy.passes.opset import RaiseOpset
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.passes.simulate_rounding import SimulateRounding
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

FP32, FP16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], f"{output}_node", **attributes)


def model(nodes, opset=18, **constants):
    dims = ["n", 4, "h", "w_"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "oh", "ow"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    proto.metadata_props.add(key="kept", value="yes")
    return parse(proto.SerializeToString())


def weights(factor=1.0, seed=0):
    return (factor * np.random.default_rng(seed).normal(size=(4, 4, 1, 1))).astype(np.float32)


def two_convolutions(first=1.0, second=1.0):
    nodes = [node("Conv", "image w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "logits")]
    return model(nodes, w1=weights(first), w2=weights(second, 1))


def types(graph):
    return {value.name: value.dtype for node in graph for value in node.outputs}


def simulated(graph_model):
    return OnnxRuntimeBackend(serialize(pipelines.simulation()(graph_model).model))


def run(graph_model, image):
    return OnnxRuntimeBackend(serialize(graph_model)).infer({"image": image})["logits"]


def test_data_becomes_fp16_between_float_inputs_and_outputs():
    result = ToFp16()(two_convolutions())
    assert result.modified
    found = RemoveUnusedNodesPass()(result.model).model
    onnx.checker.check_model(onnx.load_model_from_string(serialize(found)), full_check=True)
    kinds = types(found.graph)
    assert [kinds[name] for name in ("image/fp16", "a", "b", "logits/fp16", "logits")] == [FP16] * 4 + [FP32]
    assert [node.op_type for node in found.graph] == ["Cast", "Conv", "Relu", "Conv", "Cast"]
    assert {value.dtype for value in found.graph.initializers.values()} == {FP16}
    assert found.graph.inputs[0].dtype == found.graph.outputs[0].dtype == FP32
    assert found.graph.outputs[0].name == "logits"


def test_what_must_stay_float_does_with_the_casts_this_needs():
    found = ToFp16(keep={"b"})(two_convolutions()).model
    kinds = types(found.graph)
    assert kinds["b"] == FP32
    # The ReLU makes b and the convolution reads it, so both run in float32; the first convolution does not.
    assert kinds["a"] == FP16
    reads = {node.name: [value.name for value in node.inputs] for node in found.graph}
    assert reads["b_node"] == ["a/fp32"]
    assert reads["logits_node"] == ["b", "w2"]
    assert "logits/fp16" not in kinds


def test_a_tensor_is_cast_once_for_all_who_read_it():
    nodes = [node("Conv", "image w1", "a"), node("Conv", "image w1", "b"), node("Add", "a b", "logits")]
    found = RemoveUnusedNodesPass()(ToFp16()(model(nodes, w1=weights())).model).model
    assert [node.op_type for node in found.graph].count("Cast") == 2
    assert len(found.graph.initializers) == 1


def test_shapes_and_the_scales_of_a_resize_stay_what_they_are():
    nodes = [
        node("Conv", "image w1", "a"),
        node("Shape", "a", "size"),
        node("Cast", "size", "exact", to=TensorProto.FLOAT),
        node("Mul", "exact two", "doubled"),
        node("Cast", "doubled", "target", to=TensorProto.INT64),
        helper.make_node("Resize", ["a", "", "", "target"], ["b"], "b_node", mode="linear"),
        helper.make_node("Resize", ["b", "", "factors"], ["logits"], "logits_node", mode="linear"),
    ]
    two, factors = np.array([1, 1, 2, 2], np.float32), np.array([1, 1, 2, 2], np.float32)
    original = model(nodes, w1=weights(), two=two, factors=factors)
    image = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    wanted = run(original, image)
    found = ToFp16()(original).model
    kinds = types(found.graph)
    assert kinds["b"] == FP16
    assert kinds["exact"] == kinds["doubled"] == FP32
    assert found.graph.initializers["factors"].dtype == FP32
    onnx.checker.check_model(onnx.load_model_from_string(serialize(found)), full_check=True)
    np.testing.assert_allclose(simulated(found).infer({"image": image})["logits"], wanted, atol=4e-3 * np.ptp(wanted))


def test_constants_that_fp16_cannot_hold_are_refused_unless_kept():
    with pytest.raises(InputError, match="constant w1 is outside FP16's range"):
        ToFp16()(two_convolutions(first=1e5))
    found = ToFp16(keep={"w1"})(two_convolutions(first=1e5)).model
    assert types(found.graph)["a"] == FP32


def test_qdq_in_fp16_wants_a_newer_opset():
    nodes = [
        node("QuantizeLinear", "image s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d w1", "logits"),
    ]
    constants = {"s": np.float32(0.125), "z": np.int8(0), "w1": weights()}
    with pytest.raises(InputError, match="Q/DQ of opset 18 has no FP16"):
        ToFp16()(model(nodes, **constants))
    result = RaiseOpset(19)(model(nodes, **constants))
    found = result.model
    assert result.modified
    assert found.opset_imports[""] == 19
    assert found.metadata_props["kept"] == "yes"
    assert [node.name for node in found.graph] == ["q_node", "d_node", "logits_node"]
    ToFp16()(found)
    assert types(found.graph)["d"] == FP16
    onnx.checker.check_model(onnx.load_model_from_string(serialize(found)), full_check=True)


def test_an_opset_that_will_do_is_left_alone():
    result = RaiseOpset(19)(model([node("Conv", "image w1", "logits")], opset=20, w1=weights()))
    assert not result.modified
    assert result.declined == (Declined("opset 20 is not older than 19"),)


def test_a_graph_without_fp16_needs_no_simulation():
    assert not SimulateRounding()(model([node("Conv", "image w1", "logits")], w1=weights())).modified


def test_a_graph_that_computes_on_no_float32_input_is_declined():
    graph = model([node("Conv", "image w1", "logits")], w1=weights())
    graph.graph.inputs[0].type = ir.TensorType(FP16)
    result = ToFp16()(graph)
    assert not result.modified
    assert result.declined == (Declined("no node computes on a float32 input"),)


def test_branches_and_foreign_operators_are_refused():
    foreign = helper.make_node("Gelu", ["image"], ["logits"], "gelu", domain="com.microsoft")
    graph = helper.make_graph(
        [foreign],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4, "h", "w_"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "h", "w_"])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    with pytest.raises(InputError, match=r"Gelu gelu cannot be made FP16; got an operator of com\.microsoft"):
        ToFp16()(ir.from_proto(helper.make_model(graph, opset_imports=opsets)))


# What ONNX Runtime's CPU provider does with FP16, and what it does with explicit rounding


def test_onnxruntime_alone_does_not_compute_in_fp16_but_the_simulation_does():
    image = np.full((1, 4, 2, 2), 1000, np.float32)
    graph = model(
        [node("Conv", "image w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "logits")],
        w1=np.full((4, 4, 1, 1), 100, np.float32),
        w2=np.full((4, 4, 1, 1), 0.001, np.float32),
    )
    half = ToFp16()(graph).model
    # 4 * 100 * 1000 is no FP16 number, and yet it comes through: nothing was rounded in between.
    assert np.isfinite(run(half, image)).all()
    assert np.isinf(simulated(half).infer({"image": image})["logits"]).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(1e-4, 1e3))
def test_the_simulation_rounds_to_fp16_what_each_node_makes(seed, factor):
    image = np.random.default_rng(seed).uniform(-3, 3, (1, 4, 3, 5)).astype(np.float32)
    first, second = weights(factor, seed), weights(1.0, seed + 1)
    graph = model(
        [node("Conv", "image w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "logits")], w1=first, w2=second
    )

    def half(array):
        return array.astype(np.float16).astype(np.float64)

    def conv(array, kernel):
        return np.einsum("nchw,kc->nkhw", array, half(kernel)[:, :, 0, 0])

    wanted = half(conv(half(np.maximum(conv(half(image), first), 0)), second))
    found = simulated(ToFp16()(graph).model).infer({"image": image})["logits"]
    # A sum in another order may fall to the other side of the middle between two FP16 numbers.
    np.testing.assert_allclose(found, wanted, rtol=2**-9, atol=2**-9 * np.abs(wanted).max())
    np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))
