"""A Max in front of a quantisation takes nothing away, whatever the zero point."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.passes.keep_apart import KeepApart
from tests.support.quantizable_graphs import make_node, model_of, outputs_in_float, weights


def graph(scale, zero_point):
    nodes = [
        make_node("Conv", "image w0", "c0"),
        make_node("QuantizeLinear", "c0 scale zero_point", "q"),
        make_node("DequantizeLinear", "q scale zero_point", "logits"),
    ]
    return model_of(nodes, w0=weights(0), scale=np.float32(scale), zero_point=zero_point)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 255), st.sampled_from([np.uint8, np.int8]), st.floats(1e-3, 0.1))
def test_the_numbers_are_the_same(zero_point, dtype, scale):
    model = graph(scale, np.array(zero_point, np.uint8).view(dtype))
    image = np.random.default_rng(0).normal(0, 3, (1, 4, 8, 8)).astype(np.float32)
    (before,) = outputs_in_float(model, image)
    model = KeepApart(["q"])(model).model
    assert [node.op_type for node in model.graph] == ["Conv", "Max", "QuantizeLinear", "DequantizeLinear"]
    np.testing.assert_array_equal(outputs_in_float(model, image)[0], before)


@pytest.mark.parametrize(("names", "scale"), [([], 0.1), (["another"], 0.1), (["q"], [0.1, 0.2, 0.1, 0.2])])
def test_others_stay_as_they_are(names, scale):
    model = graph(scale, np.zeros(np.shape(scale), np.uint8))
    kinds = [node.op_type for node in KeepApart(names)(model).model.graph]
    assert kinds == ["Conv", "QuantizeLinear", "DequantizeLinear"]
