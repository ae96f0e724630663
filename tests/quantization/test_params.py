"""The arithmetic of quantising: against the formulas written out, against ONNX Runtime's operators, and at its ends."""

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError
from fcn_deploy.quantization.params import AsymmetricUint8, QuantParams, SymmetricInt8, dequantize

ENDS = st.one_of(
    st.just(0.0),
    st.floats(0, 2.0**127, width=32),
    st.floats(0, 2.0**-120, width=32),
    st.floats(0, 100, width=32),
    st.floats(0, 100),
)
RANGES = st.builds(lambda low, high: Range(0.0 - low, high), ENDS, ENDS)
WEIGHTS = st.sampled_from([1e-44, 1e-12, 1.0, 1e30]).flatmap(
    lambda size: hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
        elements=st.floats(-1, 1, width=32).map(lambda value: float(np.float32(value * size))),
    )
)
VALUES = hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-300, 300, width=32))


# The formulas as they stood in the two emitters and in the mse method, before they were written once.


def onnxruntime_activation(chosen):
    scale = np.float32((chosen.hi - chosen.lo) / 255) or np.float32(1)
    return scale, round(-chosen.lo / float(scale))


def onnxruntime_weights(weights, limit, least):
    largest = np.abs(weights).max(axis=(1, 2, 3)).astype(np.float64)
    scale = np.where(largest > 0, largest / limit, 1.0)
    return np.maximum(scale, least).astype(np.float32)


def tensorrt_scales(largest, fp16_scales):
    with np.errstate(under="ignore", over="ignore"):
        scale = (np.asarray(largest, np.float64) / 127).astype(np.float32)
        scale = np.where(scale > 0, scale, np.float32(1))
        if not fp16_scales:
            return scale
        half = scale.astype(np.float16)
        half = np.where(half.astype(np.float32) < scale, np.nextafter(half, np.float16(np.inf)), half)
        wide = half.astype(np.float32)
    return np.where(np.isfinite(wide), np.maximum(wide, np.float32(2.0**-24)), scale)


def represented_by_mse(values, chosen, symmetric):
    if symmetric:
        scale, lowest, highest = max(-chosen.lo, chosen.hi) / 127, -127, 127
    else:
        scale = (chosen.hi - chosen.lo) / 255
        zero = round(-chosen.lo / scale) if scale > 0 else 0
        lowest, highest = -zero, 255 - zero
    return np.rint(values / scale).clip(lowest, highest) * scale


@settings(max_examples=300, deadline=None)
@given(RANGES)
def test_asymmetric_parameters_are_those_of_the_onnx_runtime_emitter(chosen):
    scale, zero_point = onnxruntime_activation(chosen)
    params = AsymmetricUint8().of_range(chosen)
    assert params.scale.dtype == np.float32
    assert params.scale == scale
    assert params.zero_point == min(zero_point, 255)  # the emitter knew no limit
    assert (params.integer, params.lowest, params.highest) == ("uint8", 0, 255)


@settings(max_examples=300, deadline=None)
@given(WEIGHTS, st.sampled_from([64, 127]), st.sampled_from([0.0, 1e-30, 1e-3]))
def test_weight_scales_are_those_of_the_onnx_runtime_emitter(weights, limit, least):
    with np.errstate(under="ignore"):
        wanted = onnxruntime_weights(weights, limit, least)
    params = SymmetricInt8(limit).of_weights(weights, least)
    assert params.scale.dtype == np.float32
    np.testing.assert_array_equal(params.scale, np.where(wanted > 0, wanted, 1))  # the emitter divided by zero
    assert (params.integer, params.lowest, params.highest, params.zero_point) == ("int8", -limit, limit, 0)


@settings(max_examples=300, deadline=None)
@given(RANGES, st.booleans())
def test_symmetric_parameters_are_those_of_the_tensorrt_emitter(chosen, fp16_scales):
    params = SymmetricInt8(127, "float16" if fp16_scales else "float32").of_range(chosen)
    assert params.scale.dtype == np.float32
    assert params.scale == tensorrt_scales(max(-chosen.lo, chosen.hi), fp16_scales)


@settings(max_examples=300, deadline=None)
@given(WEIGHTS, st.booleans())
def test_weight_scales_are_those_of_the_tensorrt_emitter(weights, fp16_scales):
    params = SymmetricInt8(127, "float16" if fp16_scales else "float32").of_weights(weights)
    assert params.scale.dtype == np.float32
    np.testing.assert_array_equal(params.scale, tensorrt_scales(np.abs(weights).max(axis=(1, 2, 3)), fp16_scales))


@settings(max_examples=300, deadline=None)
@given(st.floats(2.0**-120, 2.0**100))
def test_scales_for_bf16_are_its_numbers_and_the_next_one_up(largest):
    scale = SymmetricInt8(127, "bfloat16").of_range(Range(0, largest)).scale
    exact = np.float32(largest / 127)
    assert scale.dtype == np.float32
    assert scale == scale.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert exact <= scale < exact * (1 + 2.0**-7)


@settings(max_examples=300, deadline=None)
@given(VALUES, RANGES, st.booleans())
def test_values_represented_are_those_of_the_mse_method(values, chosen, symmetric):
    assume(chosen.hi - chosen.lo > 1e-30)
    values = values.astype(np.float64)
    scheme = SymmetricInt8(127, "float64") if symmetric else AsymmetricUint8("float64")
    params = scheme.of_range(chosen)
    assert params.scale.dtype == np.float64
    found = params.dequantize(params.quantize(values))
    np.testing.assert_array_equal(found, represented_by_mse(values, chosen, symmetric))


# What they compute


def _run_qdq(values, params, axis):
    """What ONNX Runtime's QuantizeLinear and DequantizeLinear make of float32 values."""
    constants = {"scale": params.scale, "zero": np.full(params.scale.shape, params.zero_point, params.integer)}
    integer = helper.np_dtype_to_tensor_dtype(np.dtype(params.integer))
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", *constants], ["q"], axis=axis),
            helper.make_node("DequantizeLinear", ["q", *constants], ["y"], axis=axis),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, values.shape)],
        [
            helper.make_tensor_value_info("q", integer, values.shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, values.shape),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})


@pytest.mark.parametrize("chosen", [Range(0, 6), Range(-1, 2), Range(-3, 0), Range(-0.01, 200)])
def test_asymmetric_quantising_is_what_onnx_runtimes_operators_do(chosen):
    values = np.random.default_rng(0).uniform(1.5 * chosen.lo - 0.1, 1.5 * chosen.hi + 0.1, 5000).astype(np.float32)
    params = AsymmetricUint8().of_range(chosen)
    integers, wanted = _run_qdq(values, params, 0)
    found = params.quantize(values)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, integers)
    np.testing.assert_array_equal(params.dequantize(found).astype(np.float32), wanted)


def test_symmetric_quantising_per_channel_is_what_onnx_runtimes_operators_do():
    weights = np.random.default_rng(0).normal(size=(5, 7, 3, 3)).astype(np.float32)
    weights[2] *= 1000
    params = SymmetricInt8().of_weights(weights)
    integers, wanted = _run_qdq(weights, params, 0)
    found = params.quantize(weights)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, integers)
    np.testing.assert_array_equal(params.dequantize(found).astype(np.float32), wanted)
    np.testing.assert_array_equal(np.abs(found.astype(int)).max((1, 2, 3)), 127)


@settings(max_examples=100, deadline=None)
@given(RANGES, st.sampled_from([AsymmetricUint8(), SymmetricInt8(), SymmetricInt8(64), SymmetricInt8(127, "float16")]))
def test_zero_is_exact_and_both_ends_are_covered_to_half_a_step(chosen, scheme):
    params = scheme.of_range(chosen)
    ends = np.array([chosen.lo, 0.0, chosen.hi])
    found = params.dequantize(params.quantize(ends))
    assert found[1] == 0
    subnormal = float(params.scale) < np.finfo(np.float32).tiny
    assert subnormal or (np.abs(found - ends) <= 0.5001 * float(params.scale)).all()


def test_values_beyond_the_range_are_saturated():
    for scheme in (AsymmetricUint8(), SymmetricInt8(64)):
        params = scheme.of_range(Range(-1, 1))
        integers = params.quantize(np.array([-1e30, 1e30]))
        assert integers.tolist() == [params.lowest, params.highest]


def test_halves_are_rounded_to_the_even_neighbour():
    params = QuantParams(np.asarray(2.0), "int8", -127, 127)
    assert params.quantize(np.array([1.0, 3.0, -1.0, 5.0])).tolist() == [0, 2, 0, 2]


def test_another_rounding_takes_values_in_units_of_their_scale():
    params = SymmetricInt8(10).of_weights(np.array([[10.0, 4.6], [0.0, 2.0]], np.float32))
    integers = params.quantize(np.array([[10.0, 4.6], [0.0, 1.9]], np.float32), np.floor)
    assert integers.tolist() == [[10, 4], [0, 9]]


def test_fp16_scales_are_fp16_numbers_that_cover_the_range():
    for largest in (1e-9, 0.1, 1.0, 60_000.0 * 127):
        scale = SymmetricInt8(127, "float16").of_range(Range(0, largest)).scale
        assert np.float32(np.float16(scale)) == scale
        assert scale * 127 >= largest * (1 - 1e-6)
    assert SymmetricInt8(127, "float16").of_range(Range(0, 1e7 * 127)).scale == np.float32(1e7)  # beyond FP16


def test_dequantising_goes_along_any_axis_with_a_zero_point_per_channel():
    integers = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    scale, zero_point = np.array([1, 10, 100], np.float32), np.array([0, 2, 255], np.uint8)
    found = dequantize(integers, scale, zero_point, axis=1)
    np.testing.assert_array_equal(found[1], [[6, 7], [60, 70], [-24500, -24400]])
    np.testing.assert_array_equal(dequantize(integers, scale[:1], zero_point[:1], axis=1), integers)


# What is refused


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, [1.0, 0.0], [[1.0]]])
def test_a_bad_scale_is_refused(scale):
    with pytest.raises(InputError, match=r"bad scale; got .*expected positive, finite numbers"):
        QuantParams(np.asarray(scale), "int8", -127, 127)


@pytest.mark.parametrize("limits", [(-129, 127, 0), (-127, 128, 0), (-127, 127, -128), (1, 127, 0), (5, 4, 5)])
def test_integers_that_do_not_fit_are_refused(limits):
    with pytest.raises(InputError, match=r"bad integer limits; got .* with zero point .*; expected .* within int8"):
        QuantParams(np.asarray(1.0), "int8", *limits)


@pytest.mark.parametrize("limit", [0, -1, 128])
def test_a_limit_outside_int8_is_refused(limit):
    with pytest.raises(InputError, match=r"bad limit of int8; got .*; expected 1 to 127"):
        SymmetricInt8(limit)


@pytest.mark.parametrize("scheme", [AsymmetricUint8, lambda scale_type: SymmetricInt8(127, scale_type)])
def test_an_unknown_scale_type_is_refused(scheme):
    expected = "float16 or bfloat16 or float32 or float64"
    with pytest.raises(InputError, match=f"unknown scale type; got 'float8'; expected {expected}"):
        scheme("float8")
