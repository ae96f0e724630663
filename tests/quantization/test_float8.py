"""E4M3: what is rounded to what, beside all 254 finite numbers of the type, ml_dtypes and ONNX Runtime's operators."""

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError
from fcn_deploy.quantization.float8 import LARGEST, Float8, Float8Params

CODES = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
CODES = CODES[np.isfinite(CODES.astype(np.float32))]
ONE = Float8Params(np.asarray(np.float32(1)))
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SCALES = st.floats(2.0**-40, 2.0**20, width=32)


def nearest(value):
    """The nearest numbers of the type: two for a value halfway between them, else one."""
    distance = np.abs(CODES.astype(np.float64) - np.clip(np.float64(value), -448, 448))
    return CODES[distance == distance.min()]


def even(number):
    return number.view(np.uint8) % 2 == 0


def test_the_largest_number_is_448():
    assert CODES.astype(np.float32).max() == LARGEST == float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)


def test_every_number_of_the_type_stays_what_it_is():
    np.testing.assert_array_equal(ONE.quantize(CODES.astype(np.float32)).view(np.uint8), CODES.view(np.uint8))
    np.testing.assert_array_equal(ONE.dequantize(CODES), CODES.astype(np.float64))


@settings(max_examples=500, deadline=None)
@given(st.one_of(FLOATS, st.floats(-500, 500, width=32), st.floats(-(2.0**-5), 2.0**-5, width=32)))
def test_a_value_becomes_the_nearest_number(value):
    found = ONE.quantize(np.asarray(value, np.float32))
    assert float(found) in nearest(value).astype(np.float64)


def test_halves_become_the_even_neighbour_and_more_than_448_becomes_448():
    positive = np.sort(CODES.astype(np.float32)[CODES.astype(np.float32) > 0])
    halves = (positive[1:] + positive[:-1]) / 2
    for half, found in zip(halves, ONE.quantize(halves), strict=True):
        assert len(nearest(half)) == 2
        assert even(found)
    beyond = np.array([448.1, 464, 1e30, -449, -1e30], np.float32)
    np.testing.assert_array_equal(ONE.quantize(beyond).astype(float), [448, 448, 448, -448, -448])


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=2), elements=st.floats(-448, 448, width=32)))
def test_it_is_the_rounding_of_ml_dtypes_within_the_range(values):
    np.testing.assert_array_equal(
        ONE.quantize(values).view(np.uint8), values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    )


@settings(max_examples=200, deadline=None)
@given(st.floats(2.0**-6, 448, width=32), SCALES)
def test_a_normal_number_is_kept_within_a_sixteenth(value, scale):
    params = Float8Params(np.asarray(np.float32(scale)))
    real = np.asarray(np.float32(value) * np.float32(scale))
    found = params.dequantize(params.quantize(real))
    assert abs(found - real) <= abs(real) / 16 * (1 + 1e-5)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, 8, elements=st.floats(-1e3, 1e3, width=32)), SCALES)
def test_zero_is_exact_and_the_order_is_kept(values, scale):
    params = Float8Params(np.asarray(np.float32(scale)))
    assert float(params.dequantize(params.quantize(np.zeros((), np.float32)))) == 0
    found = params.dequantize(params.quantize(np.sort(values)))
    assert (np.diff(found) >= 0).all()


def onnxruntime_qdq(values, scale, opset):
    scales = helper.make_tensor("scale", TensorProto.FLOAT, [], [float(scale)])
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [scales, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


@pytest.mark.parametrize("opset", [19, 21])
@pytest.mark.parametrize("scale", [1.0, 0.0123, 37.5])
def test_quantising_is_what_onnx_runtimes_operators_do(scale, opset):
    random = np.random.default_rng(0)
    sizes = [random.normal(0, size * scale, 4000) for size in (1e-3, 0.1, 10, 300, 1e4)]
    values = np.concatenate([*sizes, scale * CODES.astype(np.float64), [0, -0.0]]).astype(np.float32)
    params = Float8Params(np.asarray(np.float32(scale)))
    found = params.dequantize(params.quantize(values)).astype(np.float32)
    np.testing.assert_array_equal(found, onnxruntime_qdq(values, scale, opset))


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-1e4, 0, width=32),
    st.floats(0, 1e4, width=32),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_a_scale_brings_the_wider_side_of_a_range_to_448_at_most(lo, hi, scale_type):
    params = Float8(scale_type).of_range(Range(lo, hi))
    largest = max(-lo, hi)
    number = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[scale_type]
    assert float(params.scale) == float(params.scale.astype(number))
    if largest > 1e-30:
        assert largest / float(params.scale) <= 448 * (1 + 1e-6)
    if largest > 0.1:
        assert largest / float(params.scale) >= 448 * (1 - 2.0**-7)


def test_weights_have_one_scale_and_those_of_zeros_is_1():
    weights = np.random.default_rng(0).normal(size=(5, 7, 3, 3)).astype(np.float32)
    weights[2] *= 1000
    params = Float8().of_weights(weights)
    assert params.scale.shape == ()
    assert float(params.scale) == pytest.approx(np.abs(weights).max() / 448)
    assert np.abs(params.quantize(weights).astype(np.float32)).max() == 448
    assert float(Float8().of_weights(np.zeros((1, 1, 1, 1))).scale) == 1
    assert float(Float8().of_range(Range(0, 0)).scale) == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan, [1.0, 2.0]])
def test_a_bad_scale_is_refused(scale):
    with pytest.raises(InputError, match=r"bad scale; .* expected one positive, finite number"):
        Float8Params(np.asarray(scale))


def test_an_unknown_type_of_scales_is_refused():
    with pytest.raises(InputError, match="unknown scale type"):
        Float8("float8")
