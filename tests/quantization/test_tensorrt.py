"""Emission for TensorRT: where Q/DQ stand, that everything is symmetric, and that the numbers are right."""

from collections import Counter

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.ranges import Range, Ranges
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse
from fcn_deploy.graph.ops import QDQ
from fcn_deploy.passes.opset import RaiseOpset
from fcn_deploy.passes.retype import QDQ_OPSET
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.selection import float_by_default, quantizable_layers
from fcn_deploy.quantization.tensorrt import TensorRtScheme, emit_tensorrt
from fcn_deploy.quantization.tensorrt_lint import lint
from tests.support.quantizable_graphs import make_node, model_of, outputs_in_float, residual, weights

WIDE = Range(-30.0, 30.0)


def _run(model, image):
    return outputs_in_float(model, image)[0]


def _reads(model):
    return {node.name: [value.name for value in node.inputs] for node in model.graph}


def test_qdq_pairs_stand_in_front_of_convolutions_and_nowhere_else(exported, ranges_file):
    model = parse(exported("fcn8s").read_bytes())
    layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
    emit_tensorrt(model, choose(Ranges.load(ranges_file("fcn8s")).histograms, "minmax", symmetric=True), layers)
    assert lint(model) == ()
    reads = _reads(model)
    for layer in layers:
        assert reads[layer][0].endswith("/DequantizeLinear")
        assert reads[layer][1] == f"{layer}.weight/DequantizeLinear"
        assert not reads[layer][2].endswith("/DequantizeLinear")  # the bias
    kinds = Counter(node.op_type for node in model.graph)
    assert kinds["QuantizeLinear"] == len(layers) == 14
    assert kinds["DequantizeLinear"] == 2 * len(layers)
    # Nothing between a convolution and its ReLU, and a pool reads what the ReLU made.
    assert reads["conv1_2/Relu"] == ["conv1_2/Conv"]
    assert reads["pool1/MaxPool"] == ["conv1_2/Relu"]
    assert reads["conv2_1"][0] == "pool1/MaxPool/DequantizeLinear"
    # A float layer reads the tensor before rounding, though another layer reads it rounded.
    assert reads["conv1_1"][0] == "image"
    assert reads["score_pool3_fr"][0] == "pool3/MaxPool"
    assert reads["conv4_1"][0] == "pool3/MaxPool/DequantizeLinear"
    assert reads["upscore2"][0] == "score_fr/Conv"


def test_weights_and_activations_are_symmetric_int8(exported, ranges_file):
    model = parse(exported("fcn8s").read_bytes())
    layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
    ranges = choose(Ranges.load(ranges_file("fcn8s")).histograms, "minmax", symmetric=True)
    emit_tensorrt(model, ranges, layers)
    qdq = [node for node in model.graph if node.op_type in QDQ]
    assert len(qdq) == 3 * len(layers)
    for node in qdq:
        scale, zero_point = constant_of(node.inputs[1]), constant_of(node.inputs[2])
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert (scale > 0).all()
        if "weight" not in node.name:
            assert scale.ndim == 0
    weights = constant_of(next(node for node in model.graph if node.name.startswith("conv2_1.weight")).inputs[0])
    assert weights.dtype == np.int8
    np.testing.assert_array_equal(np.abs(weights.astype(int)).max((1, 2, 3)), 127)


def test_fp8_stands_where_int8_does_with_one_scale_for_each_tensor(exported, ranges_file):
    emitted = {}
    ranges = choose(Ranges.load(ranges_file("fcn8s")).histograms, "minmax", symmetric=True)
    for numbers in ("int8", "fp8"):
        model = emitted[numbers] = parse(exported("fcn8s").read_bytes())
        layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
        emit_tensorrt(model, ranges, layers, TensorRtScheme(numbers=numbers))
    assert _reads(emitted["fp8"]) == _reads(emitted["int8"])
    assert lint(emitted["fp8"], ir.DataType.FLOAT8E4M3FN) == ()
    (finding, *_) = lint(emitted["fp8"])
    assert "Q/DQ of FLOAT8E4M3FN" in str(finding)
    for node in emitted["fp8"].graph:
        if node.op_type in QDQ:
            scale, zero_point = constant_of(node.inputs[1]), constant_of(node.inputs[2])
            assert (scale.shape, scale.dtype, zero_point.shape) == ((), np.float32, ())
            assert zero_point.dtype == ml_dtypes.float8_e4m3fn
    weights = constant_of(next(n for n in emitted["fp8"].graph if n.name.startswith("conv2_1.weight")).inputs[0])
    assert weights.dtype == ml_dtypes.float8_e4m3fn
    assert np.abs(weights.astype(np.float32)).max() == 448


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    largest=st.floats(1e-3, 1e4),
    scale_type=st.sampled_from(["float32", "float16", "bfloat16"]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
)
def test_an_fp8_graph_gives_what_the_numbers_of_e4m3_give(seed, largest, scale_type, shape):
    array = weights(seed)
    model = model_of([make_node("Identity", "image", "a"), make_node("Conv", "a w", "logits")], w=array)
    batch, height, width = shape
    # Up to twice the range, so that some values saturate.
    image = np.random.default_rng(seed).uniform(-2 * largest, 2 * largest, (batch, 4, height, width)).astype(np.float32)
    scheme = TensorRtScheme(scale_type, numbers="fp8")
    emit_tensorrt(model, {"a": Range(-largest / 2, largest)}, ["logits"], scheme)
    found = _run(RaiseOpset(QDQ_OPSET)(model).model, image)
    of_data, of_weights = scheme.quantizer.of_range(Range(-largest / 2, largest)), scheme.quantizer.of_weights(array)
    assert np.abs(of_data.dequantize(of_data.quantize(image))).max() <= 448.0 * float(of_data.scale)
    kernel = of_weights.dequantize(of_weights.quantize(array))[..., 0, 0]
    wanted = np.einsum("oc,nchw->nohw", kernel, of_data.dequantize(of_data.quantize(image)))
    np.testing.assert_allclose(found, wanted, atol=1e-5 * largest)


def test_fp8_corrects_biases_for_the_rounding_of_weights():
    array = weights(3)
    means = {"a": np.array([3.0, 2.0, 1.0, 5.0])}
    model = model_of([make_node("Identity", "image", "a"), make_node("Conv", "a w", "logits")], w=array)
    emit_tensorrt(model, {"a": Range(0, 10)}, ["logits"], TensorRtScheme(numbers="fp8"), means)
    quantizer = TensorRtScheme(numbers="fp8").quantizer.of_weights(array)
    kernel = quantizer.dequantize(quantizer.quantize(array))[..., 0, 0]
    (conv,) = [node for node in model.graph if node.op_type == "Conv"]
    wanted = (array[..., 0, 0] - kernel) @ means["a"]
    np.testing.assert_allclose(constant_of(conv.inputs[2]), wanted, rtol=1e-4, atol=1e-6)


def test_unknown_numbers_are_refused():
    with pytest.raises(UsageError, match="unknown numbers to quantise to; got 'int4'; expected int8 or fp8"):
        TensorRtScheme(numbers="int4")


@pytest.mark.parametrize("identity", [True, False])
def test_a_residual_sum_reads_its_skip_in_int8_and_its_convolution_in_float(identity):
    model = residual(identity)
    image = np.random.default_rng(1).normal(size=(1, 4, 16, 16)).astype(np.float32)
    wanted = _run(model, image)
    layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
    ranges = dict.fromkeys(["r0", "r1", "past", "block", "c4"], WIDE)
    emit_tensorrt(model, ranges, layers)
    reads = _reads(model)
    # Of two convolutions, the later one, c2, computes the sum.
    assert reads["sum"] == (["c2", "r0/DequantizeLinear"] if identity else ["past/DequantizeLinear", "c2"])
    assert reads["c1"][0] == "r0/DequantizeLinear"
    assert reads["block"] == ["sum"]
    assert sum(name.endswith("QuantizeLinear") and name.startswith("r0") for name in reads) == 1  # shared
    assert np.abs(_run(model, image) - wanted).max() <= 0.15 * np.ptp(wanted)


def test_a_sum_that_no_integer_layer_reads_stays_float():
    model = residual(identity=False)
    emit_tensorrt(model, dict.fromkeys(["r0", "r1"], WIDE), {"c1", "c2"})
    assert _reads(model)["sum"] == ["past", "c2"]


def test_a_sum_whose_convolutions_are_float_stays_float():
    model = residual(identity=True)
    emit_tensorrt(model, dict.fromkeys(["r0", "block"], WIDE), {"c1", "c4"})
    assert _reads(model)["sum"] == ["c2", "r0"]


def test_a_pair_before_a_max_pool_serves_all_of_its_readers():
    def pooled():
        nodes = [
            make_node("Conv", "image w0", "c0"),
            make_node("Relu", "c0", "r0"),
            make_node("MaxPool", "r0", "pool", kernel_shape=[2, 2]),
            make_node("Conv", "pool w1", "c1"),
            make_node("Conv", "pool w2", "score"),
            make_node("Add", "c1 score", "logits"),
        ]
        return model_of(nodes, w0=weights(0), w1=weights(1), w2=weights(2))

    image = np.random.default_rng(1).normal(size=(1, 4, 7, 8)).astype(np.float32)
    before, after = pooled(), pooled()
    emit_tensorrt(before, {"r0": Range(0, 8)}, ["c1"], TensorRtScheme(before_pools=True))
    emit_tensorrt(after, {"r0": Range(0, 8)}, ["c1", "score"])
    reads = _reads(before)
    assert reads["pool"] == ["r0/DequantizeLinear"]
    assert (reads["c1"][0], reads["score"]) == ("pool", ["pool", "w2"])
    # A pool of rounded numbers gives what rounding the pooled ones gives; the weights of `score` stay float.
    emitted = {node.name for node in before.graph}
    assert {"r0/QuantizeLinear", "c1.weight/DequantizeLinear"} <= emitted
    wanted = _run(after, image)
    assert np.abs(_run(before, image) - wanted).max() <= 0.02 * np.ptp(wanted)


def test_a_tensor_that_a_pool_and_a_convolution_read_has_one_pair():
    nodes = [
        make_node("Relu", "image", "r0"),
        make_node("MaxPool", "r0", "pool", kernel_shape=[1, 1]),
        make_node("MaxPool", "pool", "twice", kernel_shape=[1, 1]),
        make_node("Conv", "twice w1", "c1"),
        make_node("Conv", "r0 w2", "c2"),
        make_node("Add", "c1 c2", "logits"),
    ]
    model = model_of(nodes, w1=weights(1), w2=weights(2))
    emit_tensorrt(model, {"r0": Range(0, 8)}, ["c1", "c2"], TensorRtScheme(before_pools=True))
    reads = _reads(model)
    assert (reads["pool"], reads["c2"][0]) == (["r0/DequantizeLinear"], "r0/DequantizeLinear")
    assert (reads["twice"], reads["c1"][0]) == (["pool"], "twice")
    assert [node.op_type for node in model.graph].count("QuantizeLinear") == 1


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(1e-6, 1e3), largest=st.floats(1e-3, 1e4), fp16=st.booleans(), seed=st.integers(0, 1000))
def test_scales_cover_the_range_and_the_error_is_what_rounding_allows(scale, largest, fp16, seed):
    array = weights(seed, scale)
    nodes = [make_node("Identity", "image", "a"), make_node("Conv", "a w", "logits")]
    model = model_of(nodes, w=array)
    image = np.random.default_rng(seed).uniform(-largest, largest, (1, 4, 5, 5)).astype(np.float32)
    image[0, 0, 0, 0] = largest
    wanted = _run(model, image)
    emit_tensorrt(
        model, {"a": Range(-largest, largest / 2)}, ["logits"], TensorRtScheme("float16" if fp16 else "float32")
    )
    scales = {node.name: constant_of(node.inputs[1]) for node in model.graph if "Linear" in node.op_type}
    step, steps = scales["a/QuantizeLinear"], scales["logits.weight/DequantizeLinear"]
    assert step * 127 >= np.float32(largest) * (1 - 1e-6)
    assert (steps * 127 >= np.abs(array).max((1, 2, 3)) * (1 - 1e-6)).all()
    if fp16:
        for each in (step, steps):
            np.testing.assert_array_equal(each.astype(np.float16).astype(np.float32), each)
    found = _run(model, image)
    taps = np.abs(array).sum((1, 2, 3)) * step / 2 + 4 * steps / 2 * (largest + step)
    assert (np.abs(found - wanted).max((0, 2, 3)) <= 1.001 * taps + 1e-6 * np.abs(wanted).max()).all()


def test_a_tensor_that_was_always_zero_is_no_division_by_zero():
    model = model_of(
        [make_node("Identity", "image", "a"), make_node("Conv", "a w", "logits")], w=np.zeros((4, 4, 1, 1), "f4")
    )
    emit_tensorrt(model, {"a": Range(0, 0)}, ["logits"], TensorRtScheme("float16"))
    np.testing.assert_array_equal(_run(model, np.ones((1, 4, 2, 2), np.float32)), 0)


def test_unknown_layers_and_missing_ranges_are_refused(exported):
    model = parse(exported("fcn8s").read_bytes())
    with pytest.raises(InputError, match="cannot be quantised"):
        emit_tensorrt(model, {}, ["upscore2"])
    with pytest.raises(InputError, match="no range for tensor"):
        emit_tensorrt(model, {}, ["conv1_2"])
