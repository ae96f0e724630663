"""Max-pools whose last window counts, written as padding: the same numbers at every size, in ONNX Runtime."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.padded_pools import PaddedPools


def pool(kernel, stride, begin=0, end=0, **attributes):
    node = helper.make_node(
        "MaxPool",
        ["image"],
        ["logits"],
        "pool",
        kernel_shape=[kernel, kernel + 1],
        strides=[stride] * 2,
        pads=[begin, begin, end, end],
        **{"ceil_mode": 1, **attributes},
    )
    dims = ["n", 1, "h", "w"]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, "ph", "pw"])],
    )
    return parse(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )


def run(model, image):
    return ort.InferenceSession(serialize(model), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(0, 1), st.integers(0, 1), st.integers(4, 11), st.integers(5, 9)
)
def test_the_numbers_stay_at_every_size(kernel, stride, begin, end, height, width):
    if max(begin, end) >= kernel:
        return  # no pool: a window of padding alone
    image = np.random.default_rng(height).normal(size=(1, 1, height, width)).astype(np.float32) - 5
    wanted = run(pool(kernel, stride, begin, end), image)
    model = pool(kernel, stride, begin, end)
    result = PaddedPools()(model)
    assert result.modified == (end + stride - 1 < kernel)
    assert result.modified or "begin in the padding" in str(result.declined[0])
    np.testing.assert_array_equal(run(model, image), wanted)


def test_the_pools_of_an_fcn_are_padded_by_one():
    model = pool(2, 2)
    PaddedPools()(model)
    node = model.graph[0]
    assert node.attributes.get_ints("pads") == (0, 0, 1, 1)
    assert node.attributes.get_int("ceil_mode") == 0
    assert not PaddedPools()(model).modified


@pytest.mark.parametrize(("attributes", "reason"), [({"dilations": [2, 2]}, "dilated"), ({"ceil_mode": 0}, None)])
def test_other_pools_stay_as_they_are(attributes, reason):
    model = pool(2, 2, **attributes)
    result = PaddedPools()(model)
    assert not result.modified
    assert [str(each) for each in result.declined] == ([f"pool: it is {reason}"] if reason else [])


def test_a_pool_whose_padding_depends_on_the_size_stays():
    node = helper.make_node(
        "MaxPool", ["image"], ["logits"], "pool", kernel_shape=[2, 2], auto_pad="SAME_UPPER", ceil_mode=1
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, "ph", "pw"])],
    )
    model = parse(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    assert str(PaddedPools()(model).declined[0]) == "pool: its padding depends on the size"
