"""PReLU as LeakyRelu, or as a maximum: the same to the last bit, whatever the slopes."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.prelu import RewritePRelu
from fcn_deploy.passes.rewrite import Declined

SLOPES = st.floats(-2, 3, width=32)


def model_of(slopes, computed=False):
    nodes = [helper.make_node("PRelu", ["image", "image" if computed else "slopes"], ["logits"], "act")]
    dims = ["n", 4, "h", "w_"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, dims)],
        [] if computed else [numpy_helper.from_array(slopes, "slopes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def run(data, image):
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        SLOPES.map(lambda slope: np.full((4, 1, 1), slope, np.float32)),
        SLOPES.map(lambda slope: np.full(1, slope, np.float32)),
        arrays.arrays(np.float32, (4, 1, 1), elements=st.floats(-2, 1, width=32)),
        arrays.arrays(np.float32, (1, 4, 1, 1), elements=st.floats(1, 3, width=32)),
    ),
    st.integers(0, 99),
)
def test_the_numbers_are_the_same(slopes, seed):
    image = np.random.default_rng(seed).normal(size=(2, 4, 5, 7)).astype(np.float32)
    result = RewritePRelu()(parse(model_of(slopes)))
    assert result.modified
    operators = [node.op_type for node in result.model.graph]
    assert operators == (["LeakyRelu"] if np.ptp(slopes) == 0 else ["Mul", "Max" if slopes.max() <= 1 else "Min"])
    np.testing.assert_array_equal(run(serialize(result.model), image), run(model_of(slopes), image))


@pytest.mark.parametrize(
    ("slopes", "computed", "reason"),
    [
        (
            np.array([[[0.5]], [[2.0]], [[0.1]], [[0.2]]], np.float32),
            False,
            "some of its slopes are above 1 and some below",
        ),
        (
            np.array([[[0.5]], [[np.nan]], [[0.1]], [[0.2]]], np.float32),
            False,
            "some of its slopes are above 1 and some below",
        ),
        (None, True, "its slopes are not constant float32"),
    ],
)
def test_other_slopes_are_declined(slopes, computed, reason):
    result = RewritePRelu()(parse(model_of(slopes, computed)))
    assert result.declined == (Declined(reason, "act"),)
    assert not result.modified
