"""Emission for ONNX Runtime: what is quantised, that it runs in integers, and that it is right on every CPU."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.ranges import Range, Ranges
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.onnxruntime import emit_onnxruntime
from fcn_deploy.quantization.selection import float_by_default, int8_layers, quantizable_layers
from tests.support.quantizable_graphs import make_node, model_of, residual, weights


def _session(data, **entries):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in entries.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _conv_model(weight, bias=None, *, relu=True, pool=False):
    """image -> a -> Conv (-> Relu) (-> MaxPool -> Conv) -> logits; the convolution reads `a`, not the image."""
    nodes = [
        helper.make_node("Identity", ["image"], ["a"], "input"),
        helper.make_node("Conv", ["a", "w", "b"] if bias is not None else ["a", "w"], ["c"], "conv", pads=[1] * 4),
    ]
    last = "c"
    if relu:
        nodes.append(helper.make_node("Relu", [last], ["r"], "relu"))
        last = "r"
    if pool:
        nodes.append(helper.make_node("MaxPool", [last], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]))
        nodes.append(helper.make_node("Conv", ["p", "w2"], ["q"], "conv2"))
        last = "q"
    nodes.append(helper.make_node("Identity", [last], ["logits"], "output"))
    constants = [numpy_helper.from_array(weight, "w")]
    if bias is not None:
        constants.append(numpy_helper.from_array(bias, "b"))
    if pool:
        square = np.eye(weight.shape[0], dtype=np.float32)[:, :, None, None]
        constants.append(numpy_helper.from_array(square, "w2"))
    dims = ["n", weight.shape[1], "h", "w_"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", weight.shape[0], "h", "w_"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_the_first_layer_and_the_score_layers_stay_float_by_default(exported):
    graph = parse(exported("fcn8s").read_bytes()).graph
    assert float_by_default(graph) == {"conv1_1", "score_fr", "score_pool3_fr", "score_pool4_fr"}
    assert set(quantizable_layers(graph)) >= {"conv1_1", "conv1_2", "fc7", "score_fr"}
    assert not any("upscore" in layer for layer in quantizable_layers(graph))


@pytest.mark.parametrize("variant", ["fcn8s", "fcn32s"])
def test_every_layer_asked_for_becomes_an_integer_kernel(exported, ranges_file, tmp_path, variant):
    model = parse(exported(variant).read_bytes())
    kept = float_by_default(model.graph)
    layers = [layer for layer in quantizable_layers(model.graph) if layer not in kept]
    emit_onnxruntime(model, choose(Ranges.load(ranges_file(variant)).histograms, "minmax", symmetric=False), layers)
    data = serialize(model)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    kinds = [node.op_type for node in nodes]
    assert kinds.count("QLinearConv") == len(layers) == 14
    # The pools between integer layers are integer pools: each reads what an integer kernel makes.
    producers = {output: node.op_type for node in nodes for output in node.output}
    pools = [node for node in nodes if node.op_type in ("MaxPool", "NhwcMaxPool")]
    assert [producers[pool.input[0]] for pool in pools] == ["QLinearConv"] * 5
    assert "Relu" not in kinds


def test_tensors_that_float_layers_read_are_not_rounded(exported, ranges_file):
    model = parse(exported("fcn8s").read_bytes())
    emit_onnxruntime(
        model, choose(Ranges.load(ranges_file("fcn8s")).histograms, "minmax", symmetric=False), ["conv3_1"]
    )
    readers = {node.name: node.inputs[0].name for node in model.graph if node.inputs}
    assert readers["conv3_1"] == "pool2/MaxPool/DequantizeLinear"
    # conv2_2 is float and so are the readers of its ReLU, except the branch into the integer layer.
    assert readers["pool2/MaxPool"].startswith("conv2_2/Relu")
    assert readers["conv3_2"] == "conv3_1/Relu/DequantizeLinear"


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    channels=st.integers(1, 9),
    outputs=st.integers(1, 9),
    lo=st.floats(-8, 0),
    hi=st.floats(0.5, 8),
    with_bias=st.booleans(),
    relu=st.booleans(),
)
def test_the_error_is_at_most_what_rounding_to_8_and_7_bits_allows(seed, channels, outputs, lo, hi, with_bias, relu):
    random = np.random.default_rng(seed)
    weight = random.normal(size=(outputs, channels, 3, 3)).astype(np.float32)
    bias = random.normal(size=outputs).astype(np.float32) if with_bias else None
    data = _conv_model(weight, bias, relu=relu)
    image = random.uniform(lo, hi, (2, channels, 7, 6)).astype(np.float32)
    session = _session(data)
    expected = session.run(None, {"image": image})[0]
    name = "r" if relu else "c"
    ranges = {"a": Range(lo, hi), name: Range(min(0, float(expected.min())), max(0, float(expected.max())))}
    model = parse(data)
    emit_onnxruntime(model, ranges, ["conv"])
    found = _session(serialize(model)).run(None, {"image": image})[0]
    step = (hi - lo) / 255
    # Half a step of the input on every tap, half a step of the weight times the largest input, half a step out.
    taps = np.abs(weight).sum((1, 2, 3)).max()
    weights = np.abs(weight).max() / 64 / 2 * max(-lo, hi) * 9 * channels
    bound = taps * step / 2 + weights + np.ptp([*expected.ravel(), 0]) / 255 + step * np.abs(weight).max() / 64
    assert np.abs(found - expected).max() <= bound


def test_seven_bit_weights_do_not_saturate_in_the_worst_case():
    weight = np.ones((4, 64, 3, 3), np.float32)
    data = _conv_model(weight)
    model = parse(data)
    emit_onnxruntime(model, {"a": Range(0, 1), "r": Range(0, 64 * 9)}, ["conv"])
    image = np.ones((1, 64, 6, 6), np.float32)
    found = _session(serialize(model)).run(None, {"image": image})[0]
    assert found[0, :, 2, 2] == pytest.approx(64 * 9)


@pytest.mark.parametrize("tiny", [0.0, 1e-12, 1e-9, 1e-8, 1e-7])
@pytest.mark.parametrize("channels", [2, 64, 512])
def test_a_dead_channel_with_a_large_bias_keeps_its_bias(tiny, channels):
    weight = np.full((3, channels, 3, 3), tiny, np.float32)
    weight[0] = 1.0 / channels
    bias = np.array([0.5, 40.0, 7.0], np.float32)
    data = _conv_model(weight, bias)
    image = np.ones((1, channels, 4, 4), np.float32)
    expected = _session(data).run(None, {"image": image})[0]
    model = parse(data)
    emit_onnxruntime(model, {"a": Range(0, 1), "r": Range(0, 41)}, ["conv"])
    found = _session(serialize(model)).run(None, {"image": image})[0]
    np.testing.assert_allclose(found, expected, atol=1.01 * 41 / 255)


def test_a_pool_between_two_integer_layers_takes_the_range_of_its_input():
    random = np.random.default_rng(0)
    model = parse(_conv_model(random.normal(size=(4, 4, 3, 3)).astype(np.float32), pool=True))
    emit_onnxruntime(model, {"a": Range(-1, 1), "r": Range(0, 6), "q": Range(0, 6)}, ["conv", "conv2"])
    scales = {
        node.inputs[0].name: node.inputs[1].const_value.numpy()
        for node in model.graph
        if node.op_type == "QuantizeLinear"
    }
    assert scales["p"] == scales["r"] == np.float32(6 / 255)


def test_a_tensor_that_was_always_zero_is_no_division_by_zero():
    model = parse(_conv_model(np.zeros((2, 2, 3, 3), np.float32)))
    emit_onnxruntime(model, {"a": Range(0, 0), "r": Range(0, 0)}, ["conv"])
    found = _session(serialize(model)).run(None, {"image": np.zeros((1, 2, 4, 4), np.float32)})[0]
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("tiny", [1e-45, 1e-43, 1e-40])
@pytest.mark.parametrize("bias", [None, 1e-41, 5.0])
def test_weights_below_what_float32_scales_can_say_are_no_division_by_zero(tiny, bias):
    weight = np.full((2, 2, 3, 3), tiny, np.float32)
    data = _conv_model(weight, None if bias is None else np.full(2, bias, np.float32))
    model = parse(data)
    emit_onnxruntime(model, {"a": Range(0, 1e-3), "r": Range(0, 5)}, ["conv"])
    found = _session(serialize(model)).run(None, {"image": np.full((1, 2, 4, 4), 1e-3, np.float32)})[0]
    np.testing.assert_allclose(found, bias or 0, atol=0.01)


def test_unknown_layers_and_missing_ranges_are_refused(exported):
    model = parse(exported("fcn8s").read_bytes())
    with pytest.raises(InputError, match="cannot be quantised"):
        emit_onnxruntime(model, {}, ["conv9_9"])
    with pytest.raises(InputError, match="no range for tensor"):
        emit_onnxruntime(model, {}, ["conv1_2"])


def test_weight_limits_are_64_or_127():
    assert CpuScheme(127).weight_limit == 127
    with pytest.raises(InputError):
        CpuScheme(100)


# Other nets than the FCN


def _optimized(model, tmp_path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


@pytest.mark.parametrize("identity", [True, False])
def test_the_sum_of_a_residual_block_runs_in_integers(tmp_path, identity):
    model = residual(identity)
    layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
    assert layers == {"c1", "c2", "c4"} | (set() if identity else {"past"})
    image = np.random.default_rng(1).normal(size=(1, 4, 16, 16)).astype(np.float32)
    (wanted,) = _session(serialize(model)).run(None, {"image": image})
    ranges = {
        **dict.fromkeys(["r0", "r1", "block"], Range(0.0, 30.0)),
        **dict.fromkeys(["c2", "past", "c4"], Range(-30.0, 30.0)),
    }
    quantized = emit_onnxruntime(model, ranges, layers)
    (found,) = _session(serialize(quantized)).run(None, {"image": image})
    assert np.abs(found - wanted).max() <= 0.1 * np.ptp(wanted)
    operators = _optimized(quantized, tmp_path)
    assert operators.count("QLinearAdd") == 1
    assert "Add" not in operators


def test_a_sum_with_what_stays_float_stays_float(tmp_path):
    model = residual(identity=False)
    quantized = emit_onnxruntime(model, dict.fromkeys(["r0", "r1", "c2"], Range(-30.0, 30.0)), {"c1", "c2"})
    assert "QLinearAdd" not in _optimized(quantized, tmp_path)


def _clipped(lowest, highest):
    return model_of(
        [
            make_node("Conv", "image w0", "c0"),
            make_node("Conv", "c0 w1", "c1"),
            make_node("Clip", "c1 lowest highest", "clipped"),
            make_node("Conv", "clipped w2", "c2"),
            make_node("Conv", "c2 w3", "logits"),
        ],
        **{f"w{index}": weights(index) for index in range(4)},
        lowest=np.float32(lowest),
        highest=np.float32(highest),
    )


def test_a_relu6_is_part_of_its_convolution(tmp_path):
    ranges = {"c0": Range(-9.0, 9.0), "clipped": Range(0.0, 6.0), "c2": Range(-9.0, 9.0)}
    operators = _optimized(emit_onnxruntime(_clipped(0, 6), ranges, {"c1", "c2"}), tmp_path)
    assert "Clip" not in operators
    assert operators.count("QLinearConv") == 2


def test_a_clip_from_below_zero_is_not_fused():
    ranges = {"c0": Range(-9.0, 9.0), "c1": Range(-9.0, 9.0), "clipped": Range(-1.0, 6.0), "c2": Range(-9.0, 9.0)}
    quantized = emit_onnxruntime(_clipped(-1, 6), ranges, {"c1", "c2"})
    assert "Clip" in [node.op_type for node in quantized.graph]


def test_the_first_layer_may_read_the_padded_image_and_the_last_is_followed_by_no_convolution():
    model = model_of(
        [
            make_node("Pad", "image pads", "padded", mode="edge"),
            make_node("Conv", "padded w0", "first"),
            make_node("Conv", "first w1", "middle"),
            make_node("Conv", "middle w2", "last"),
            make_node("Relu", "last", "logits"),
        ],
        pads=np.zeros(8, np.int64),
        **{f"w{index}": weights(index) for index in range(3)},
    )
    assert float_by_default(model.graph) == {"first", "last"}


def test_layers_of_the_same_name_are_refused():
    model = residual(identity=True)
    for node in model.graph:
        node.name = "conv"
    with pytest.raises(InputError, match="layers cannot be told apart"):
        emit_onnxruntime(model, {}, {"conv"})


PASSED_ON = {
    "nothing": [],
    "a rectifier": [make_node("Relu", "f", "m")],
    "two rectifiers": [make_node("Relu", "f", "g"), make_node("Clip", "g zero two", "m")],
    "limits": [make_node("Clip", "f minus two", "m")],
    "a pool": [make_node("MaxPool", "f", "m", kernel_shape=[2, 2])],
    "a rectifier and a pool": [make_node("Relu", "f", "g"), make_node("MaxPool", "g", "m", kernel_shape=[2, 2])],
    "a crop": [make_node("Slice", "f one all axis", "m")],
    "a transposition": [make_node("Transpose", "f", "m", perm=[0, 1, 3, 2])],
}


@pytest.mark.parametrize("case", PASSED_ON)
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_onnxruntime_does_not_quantise_a_float_layer_by_itself(operator, case):
    after = PASSED_ON[case]
    model = model_of(
        [
            make_node("Conv", "image w0", "c0"),
            make_node("Conv", "c0 w1", "c1"),
            make_node(operator, "c1 w2", "f"),
            *after,
            make_node("Conv", f"{'m' if after else 'f'} w3", "c3"),
            make_node("Conv", "c3 w4", "logits"),
        ],
        **{f"w{index}": weights(index) for index in (0, 1, 3, 4)},
        # By one scale for all, its small weights would be rounded to 0.
        w2=weights(2) * np.array([100, 0.1, 0.1, 0.1], np.float32).reshape(1, 4, 1, 1),
        zero=np.float32(0),
        two=np.float32(2),
        minus=np.float32(-1),
        one=np.array([1]),
        all=np.array([2**31]),
        axis=np.array([2]),
    )
    names = ("image", "c0", "c1", "f", "g", "m", "c3")
    ranges = {name: Range(0.0 if name == "m" and "rectifier" in case else -9.0, 9.0) for name in names}
    data = serialize(emit_onnxruntime(model, ranges, ["c1", "c3"], CpuScheme(64, "nearest")))
    image = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    integers, simulated = (
        session.run(None, {"image": image})[0]
        for session in (_session(data), _session(data, session__disable_quant_qdq="1"))
    )
    np.testing.assert_allclose(integers, simulated, atol=1e-5)


def test_a_transposed_convolution_is_int8_in_engines_for_cpus_alone():
    nodes = ["Conv image w0 c0", "ConvTranspose c0 w1 up", "Conv up w2 c2", "Conv c2 w3 logits"]
    model = model_of(
        [make_node(op, f"{read} {w}", made) for op, read, w, made in (node.split() for node in nodes)],
        w0=weights(0),
        w1=np.ones((4, 8, 2, 2), np.float32),
        w2=np.ones((4, 8, 1, 1), np.float32),
        w3=weights(3),
    )
    for node in model.graph:
        if node.op_type == "ConvTranspose":
            node.attributes["strides"] = ir.AttrInt64s("strides", [2, 2])
    assert int8_layers(model.graph, ["up"], transposed=True) == ["up"]
    with pytest.raises(InputError, match="run up in float: only engines for ONNX Runtime and OpenVINO run it in INT8"):
        int8_layers(model.graph, ["up", "c2"])
