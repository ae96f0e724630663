"""BF16: what is retyped, what stays float32, and that the simulation rounds as ml_dtypes does."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.bf16 import ToBf16
from fcn_deploy.passes.rewrite import Declined
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

FP32, BF16 = ir.DataType.FLOAT, ir.DataType.BFLOAT16


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], f"{output}_node", **attributes)


def model(nodes, **constants):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4, "h", "w_"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "oh", "ow"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return parse(proto.SerializeToString())


def weights(factor=1.0, seed=0):
    return (factor * np.random.default_rng(seed).normal(size=(4, 4, 1, 1))).astype(np.float32)


def two_convolutions(**constants):
    nodes = [node("Conv", "image w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "logits")]
    return model(nodes, **{"w1": weights(), "w2": weights(seed=1), **constants})


def rounded(array):
    return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def simulated(graph_model, image):
    data = serialize(pipelines.simulation()(graph_model).model)
    return OnnxRuntimeBackend(data).infer({"image": image})["logits"]


def test_the_net_becomes_bf16_between_casts():
    result = ToBf16()(two_convolutions())
    graph = result.model.graph
    assert result.modified
    assert [each.op_type for each in graph] == ["Cast", "Conv", "Relu", "Conv", "Cast"]
    assert (graph.inputs[0].dtype, graph.outputs[0].dtype, graph.outputs[0].name) == (FP32, FP32, "logits")
    assert {value.dtype for each in list(graph)[:-1] for value in each.outputs} == {BF16}
    assert {each.inputs[1].dtype for each in graph if each.op_type == "Conv"} == {BF16}


def test_a_transposed_convolution_stays_float32_with_its_weights():
    nodes = [node("Conv", "image w1", "a"), node("ConvTranspose", "a w2", "b"), node("Conv", "b w1", "logits")]
    graph = ToBf16()(model(nodes, w1=weights(), w2=weights(seed=1))).model.graph
    (transposed,) = [each for each in graph if each.op_type == "ConvTranspose"]
    assert [value.dtype for value in (*transposed.inputs, *transposed.outputs)] == [FP32] * 3
    assert [each.inputs[1].dtype for each in graph if each.op_type == "Conv"] == [BF16, BF16]


def test_a_graph_without_data_is_left_as_it_is():
    graph = two_convolutions()
    graph.graph.inputs[0].type = ir.TensorType(ir.DataType.INT32)
    result = ToBf16()(graph)
    assert not result.modified
    assert result.declined == (Declined("no node computes on a float32 input"),)


def test_numbers_beyond_fp16_s_range_are_kept():
    image = np.full((1, 4, 2, 2), 1.0, np.float32)
    found = simulated(ToBf16()(two_convolutions(w1=weights(1e5), w2=weights(1e-5, 1))).model, image)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0


def test_a_constant_that_bf16_would_make_infinite_is_refused():
    with pytest.raises(
        InputError, match=r"constant w1 is outside BF16's range; got up to 3\.4.*e\+38; expected at most"
    ):
        ToBf16()(two_convolutions(w1=np.full((4, 4, 1, 1), np.finfo(np.float32).max)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    size=st.sampled_from([1e-20, 1e-3, 1.0, 1e4, 1e15]),
)
def test_the_simulation_rounds_after_every_node_as_ml_dtypes_does(seed, batch, height, width, size):
    random = np.random.default_rng(seed)
    # Powers of two: sums of them within 24 bits are exact in any order, so that only the rounding is compared.
    w1, w2 = (np.exp2(random.integers(-2, 3, (4, 4, 1, 1))).astype(np.float32) * sign for sign in (1, -1))
    image = (size * random.integers(-255, 256, (batch, 4, height, width))).astype(np.float32)
    nodes = [node("Conv", "image w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "logits")]
    found = simulated(ToBf16()(model(nodes, w1=w1, w2=w2)).model, image)
    first = rounded(np.einsum("oc,nchw->nohw", w1[..., 0, 0].astype(float), rounded(image)).clip(0))
    wanted = rounded(np.einsum("oc,nchw->nohw", w2[..., 0, 0].astype(float), first))
    np.testing.assert_array_equal(found, wanted)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=4))
def test_a_value_is_rounded_to_the_nearest_and_halves_to_the_even_neighbour(values):
    image = np.asarray(values, np.float32).reshape(1, 4, 1, 1)
    found = simulated(ToBf16()(model([node("Identity", "image", "logits")])).model, image)
    np.testing.assert_array_equal(found, rounded(image))
