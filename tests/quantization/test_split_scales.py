"""Scales of weights in two factors: what they cover, that results fit FP16, and that the numbers stay the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import UsageError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.quantization.params import SymmetricInt8
from fcn_deploy.quantization.split_scales import split_scales
from fcn_deploy.quantization.tensorrt import TensorRtScheme, emit_tensorrt
from fcn_deploy.quantization.tensorrt_lint import lint
from tests.support.quantizable_graphs import make_node, model_of, outputs_in_float, residual, weights

SPLIT = TensorRtScheme("float16", split_scales=True)
WHOLE = TensorRtScheme("float16")


def in_fp16(array):
    return np.array_equal(np.float32(np.float16(array)), np.float32(array))


@given(
    sizes=st.lists(st.floats(1e-9, 1e3) | st.just(0.0), min_size=1, max_size=6),
    bias=st.none() | st.floats(-1e4, 1e4),
    largest=st.floats(1e-3, 3e4) | st.just(0.0),
)
def test_scales_cover_the_weights_and_no_result_is_too_large_for_fp16(sizes, bias, largest):
    array = np.array(sizes, np.float32).reshape(-1, 1, 1, 1) * np.array([1, -0.5], np.float32).reshape(1, 2, 1, 1)
    biases = None if bias is None else np.full(len(sizes), bias, np.float32)
    scales = split_scales(array, biases, largest)
    assert scales.whole > 0
    assert in_fp16(scales.whole)
    assert in_fp16(scales.channels)
    params = scales.params
    np.testing.assert_array_equal(params.scale, scales.channels.astype(np.float64) * float(scales.whole))
    assert (params.scale * 127 >= np.abs(array).max((1, 2, 3)) * (1 - 1e-6)).all()
    assert (16 * largest / scales.channels <= 65504).all()
    assert bias is None or (abs(bias) / scales.channels <= 65504 / 2).all()


@given(seed=st.integers(0, 100), largest=st.floats(0.1, 1e3), spread=st.floats(1, 300))
def test_the_integers_are_nearly_those_of_a_scale_for_each_channel(seed, largest, spread):
    array = weights(seed) * np.geomspace(1, 1 / spread, 4, dtype=np.float32).reshape(-1, 1, 1, 1)
    split, single = split_scales(array, None, largest).params, SymmetricInt8().of_weights(array)
    # Rounded up to FP16 twice; no channel loses steps, as none is 4000 times smaller than the widest.
    assert (split.scale >= single.scale * (1 - 1e-6)).all()
    assert (split.scale <= single.scale * (1 + 2.0**-9)).all()


def test_the_first_convolution_of_all_zeros_and_one_far_smaller_than_the_rest():
    array = np.ones((3, 2, 1, 1), np.float32) * np.array([0, 1e-12, 1], np.float32).reshape(-1, 1, 1, 1)
    channels = split_scales(array, None, 100).channels
    # The scales of the first two are larger than their weights need.
    assert channels[0] == channels[1]
    assert channels[2] / channels[0] == pytest.approx(65504 / 16 * 64 / 100, rel=0.01)
    assert split_scales(np.zeros((2, 1, 1, 1), np.float32), None, 0).params.scale.min() > 0


@pytest.mark.parametrize("largest", [1e-38, 1e10, 1e30])
def test_results_that_stay_float32_give_no_warning(largest):
    """Factors beyond FP16 are float32, and so is what they multiply: the audit keeps it."""
    with np.errstate(all="raise"):
        channels = split_scales(np.ones((2, 3, 1, 1), np.float32), np.float32([0, 1e10]), largest).channels
    assert (channels >= 16 * largest / 65504).all()


def chain(**constants):
    nodes = [
        make_node("Conv", "image w0 b0", "c0"),
        make_node("Relu", "c0", "r0"),
        make_node("Conv", "r0 w1", "c1"),
        make_node("LeakyRelu", "c1", "r1"),
        make_node("Conv", "r1 w2", "logits"),
    ]
    arrays = {f"w{index}": weights(index) for index in range(3)} | {"b0": np.float32([0.5, -1, 2, 0])}
    return model_of(nodes, **arrays | constants)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), spread=st.floats(1, 100))
def test_the_results_are_those_of_a_scale_for_each_channel(seed, spread):
    factors = np.geomspace(1, 1 / spread, 4, dtype=np.float32).reshape(-1, 1, 1, 1)
    image = np.random.default_rng(seed).normal(size=(1, 4, 5, 6)).astype(np.float32)
    ranges = {"image": Range(-4, 4), "r0": Range(0, 20), "c1": Range(-30, 30), "r1": Range(-3, 30)}
    results = []
    for scheme in (SPLIT, WHOLE):
        model = chain(w0=weights(seed) * factors)
        emit_tensorrt(model, ranges, ["c0", "c1"], scheme)
        results.append(outputs_in_float(model, image)[0])
    # Scales differ by how FP16 rounds them, so an activation may round to the next integer.
    assert np.abs(results[0] - results[1]).max() <= 0.05 * np.ptp(results[1])


def test_a_mul_takes_over_the_name_of_the_result():
    model = chain()
    emit_tensorrt(model, {"image": Range(-4, 4), "r0": Range(0, 20), "c1": Range(-30, 30)}, ["c0", "c1"], SPLIT)
    assert lint(model) == ()
    nodes = {node.name: node for node in model.graph}
    for layer, reader in (("c0", "r0"), ("c1", "r1")):
        mul = nodes[f"{layer}/Mul"]
        assert [value.name for value in mul.inputs] == [f"{layer}/unscaled", f"{layer}.weight/channels"]
        assert mul.outputs[0].name == layer
        assert nodes[layer].outputs[0].name == f"{layer}/unscaled"
        assert nodes[reader].inputs[0] is mul.outputs[0]
        assert constant_of(nodes[f"{layer}.weight/DequantizeLinear"].inputs[1]).ndim == 0
        assert constant_of(mul.inputs[1]).shape == (1, 4, 1, 1)
    np.testing.assert_allclose(
        constant_of(nodes["c0"].inputs[2]) * constant_of(nodes["c0/Mul"].inputs[1]).ravel(), [0.5, -1, 2, 0], rtol=1e-5
    )


def test_the_last_layer_of_a_graph_is_split_too():
    model = model_of([make_node("Identity", "image", "a"), make_node("Conv", "a w", "logits")], w=weights(0))
    image = np.random.default_rng(0).normal(size=(1, 4, 3, 3)).astype(np.float32)
    wanted = outputs_in_float(model, image)[0]
    emit_tensorrt(model, {"a": Range(-4, 4), "logits": Range(-20, 20)}, ["logits"], SPLIT)
    assert model.graph.outputs[0].name == "logits"
    assert model.graph.outputs[0].producer().op_type == "Mul"
    assert np.abs(outputs_in_float(model, image)[0] - wanted).max() <= 0.1 * np.ptp(wanted)


def test_a_residual_sum_reads_the_scaled_result():
    model = residual(identity=True)
    names = ["r0", "r1", "c2", "block", "c4"]
    emit_tensorrt(model, dict.fromkeys(names, Range(-30, 30)), ["c1", "c2", "c4"], SPLIT)
    reads = {node.name: [value.name for value in node.inputs] for node in model.graph}
    assert reads["sum"] == ["c2", "r0/DequantizeLinear"]
    assert reads["c2/Mul"][0] == "c2/unscaled"


def test_a_result_that_an_integer_layer_reads_at_once_is_quantised_after_the_mul():
    model = model_of(
        [make_node("Conv", "image w0", "c0"), make_node("Conv", "c0 w1", "logits")], w0=weights(0), w1=weights(1)
    )
    emit_tensorrt(model, dict.fromkeys(["image", "c0", "logits"], Range(-9, 9)), ["c0", "logits"], SPLIT)
    reads = {node.name: [value.name for value in node.inputs] for node in model.graph}
    assert reads["c0/QuantizeLinear"][0] == "c0"
    assert reads["c0/Mul"][0] == "c0/unscaled"
    assert reads["logits"][0] == "c0/DequantizeLinear"


def test_a_bias_that_the_graph_computes_keeps_the_scales_of_channels():
    nodes = [make_node("ReduceMax", "image axes", "b", keepdims=0), make_node("Conv", "image w b", "logits")]
    model = model_of(nodes, w=weights(0), axes=np.array([0, 2, 3]))
    emit_tensorrt(model, {"image": Range(-4, 4), "logits": Range(-9, 9)}, ["logits"], SPLIT)
    assert "Mul" not in [node.op_type for node in model.graph]
    (dequantize,) = (node for node in model.graph if node.name == "logits.weight/DequantizeLinear")
    assert constant_of(dequantize.inputs[1]).shape == (4,)


def test_they_are_for_fp16():
    with pytest.raises(UsageError, match="scales are split for INT8 over FP16"):
        TensorRtScheme(split_scales=True)
