"""Emission for TensorRT: where Q/DQ stand, that all of it is symmetric, and that the numbers are right."""

from collections import Counter

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.ranges import Range, Ranges
from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.selection import float_by_default, quantizable_layers
from fcn_deploy.quantization.tensorrt import TensorRtScheme, emit_tensorrt
from fcn_deploy.quantization.tensorrt_lint import lint

WIDE = Range(-30.0, 30.0)


def _graph(nodes, **constants):
    """A model of `nodes` from image [n, 4, h, w] to logits of as many channels."""
    dims = ["n", 4, "h", "w_"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return parse(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )


def _node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], output, **attributes)


def _weights(seed, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=(4, 4, 1, 1))).astype(np.float32)


def _run(model, image):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def _residual(identity):
    """A first layer, a residual block whose sum goes to a convolution, and what stands in the way past it."""
    past = [] if identity else [_node("Conv", "r0 w3", "past")]
    nodes = [
        _node("Conv", "image w0", "c0"),
        _node("Relu", "c0", "r0"),
        *past,
        _node("Conv", "r0 w1", "c1"),
        _node("Relu", "c1", "r1"),
        _node("Conv", "r1 w2", "c2"),
        _node("Add", "c2 r0" if identity else "past c2", "sum"),
        _node("Relu", "sum", "block"),
        _node("Conv", "block w4", "c4"),
        _node("Conv", "c4 w5", "logits"),
    ]
    return _graph(nodes, **{f"w{index}": _weights(index) for index in range(6)})


def _reads(model):
    return {node.name: [value.name for value in node.inputs] for node in model.graph}


def test_pairs_stand_in_front_of_convolutions_and_nowhere_else(exported, ranges_file):
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
    # What stays float reads what was not rounded, though the next layer reads it rounded.
    assert reads["conv1_1"][0] == "image"
    assert reads["score_pool3_fr"][0] == "pool3/MaxPool"
    assert reads["conv4_1"][0] == "pool3/MaxPool/DequantizeLinear"
    assert reads["upscore2"][0] == "score_fr/Conv"


def test_everything_is_symmetric_int8(exported, ranges_file):
    model = parse(exported("fcn8s").read_bytes())
    layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
    ranges = choose(Ranges.load(ranges_file("fcn8s")).histograms, "minmax", symmetric=True)
    emit_tensorrt(model, ranges, layers)
    for node in model.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero_point = constant_of(node.inputs[1]), constant_of(node.inputs[2])
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert (scale > 0).all()
        if "weight" not in node.name:
            assert scale.ndim == 0
    weights = constant_of(next(node for node in model.graph if node.name.startswith("conv2_1.weight")).inputs[0])
    assert weights.dtype == np.int8
    np.testing.assert_array_equal(np.abs(weights.astype(int)).max((1, 2, 3)), 127)


@pytest.mark.parametrize("identity", [True, False])
def test_a_residual_sum_reads_the_way_past_in_int8_and_its_convolution_as_it_is(identity):
    model = _residual(identity)
    image = np.random.default_rng(1).normal(size=(1, 4, 16, 16)).astype(np.float32)
    wanted = _run(model, image)
    layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
    ranges = dict.fromkeys(["r0", "r1", "past", "block", "c4"], WIDE)
    emit_tensorrt(model, ranges, layers)
    reads = _reads(model)
    # With two convolutions the later one, c2, takes the sum in.
    assert reads["sum"] == (["c2", "r0/DequantizeLinear"] if identity else ["past/DequantizeLinear", "c2"])
    assert reads["c1"][0] == "r0/DequantizeLinear"
    assert reads["block"] == ["sum"]
    assert sum(name.endswith("QuantizeLinear") and name.startswith("r0") for name in reads) == 1  # shared
    assert np.abs(_run(model, image) - wanted).max() <= 0.15 * np.ptp(wanted)


def test_a_sum_that_no_integer_layer_reads_stays_float():
    model = _residual(identity=False)
    emit_tensorrt(model, dict.fromkeys(["r0", "r1"], WIDE), {"c1", "c2"})
    assert _reads(model)["sum"] == ["past", "c2"]


def test_a_sum_whose_convolutions_are_float_stays_float():
    model = _residual(identity=True)
    emit_tensorrt(model, dict.fromkeys(["r0", "block"], WIDE), {"c1", "c4"})
    assert _reads(model)["sum"] == ["c2", "r0"]


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(1e-6, 1e3), largest=st.floats(1e-3, 1e4), half=st.booleans(), seed=st.integers(0, 1000))
def test_scales_cover_the_range_and_the_error_is_what_rounding_allows(scale, largest, half, seed):
    weights = _weights(seed, scale)
    nodes = [_node("Identity", "image", "a"), _node("Conv", "a w", "logits")]
    model = _graph(nodes, w=weights)
    image = np.random.default_rng(seed).uniform(-largest, largest, (1, 4, 5, 5)).astype(np.float32)
    image[0, 0, 0, 0] = largest
    wanted = _run(model, image)
    emit_tensorrt(model, {"a": Range(-largest, largest / 2)}, ["logits"], TensorRtScheme(half))
    scales = {node.name: constant_of(node.inputs[1]) for node in model.graph if "Linear" in node.op_type}
    step, steps = scales["a/QuantizeLinear"], scales["logits.weight/DequantizeLinear"]
    assert step * 127 >= np.float32(largest) * (1 - 1e-6)
    assert (steps * 127 >= np.abs(weights).max((1, 2, 3)) * (1 - 1e-6)).all()
    if half:
        for array in (step, steps):
            np.testing.assert_array_equal(array.astype(np.float16).astype(np.float32), array)
    found = _run(model, image)
    taps = np.abs(weights).sum((1, 2, 3)) * step / 2 + 4 * steps / 2 * (largest + step)
    assert (np.abs(found - wanted).max((0, 2, 3)) <= 1.001 * taps + 1e-6 * np.abs(wanted).max()).all()


def test_what_was_always_zero_is_no_division_by_zero():
    model = _graph([_node("Identity", "image", "a"), _node("Conv", "a w", "logits")], w=np.zeros((4, 4, 1, 1), "f4"))
    emit_tensorrt(model, {"a": Range(0, 0)}, ["logits"], TensorRtScheme(fp16_scales=True))
    np.testing.assert_array_equal(_run(model, np.ones((1, 4, 2, 2), np.float32)), 0)


def test_unknown_layers_and_missing_ranges_are_refused(exported):
    model = parse(exported("fcn8s").read_bytes())
    with pytest.raises(InputError, match="cannot be quantised"):
        emit_tensorrt(model, {}, ["upscore2"])
    with pytest.raises(InputError, match="no range for tensor"):
        emit_tensorrt(model, {}, ["conv1_2"])
