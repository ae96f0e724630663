"""Bias correction: it keeps the mean output of a layer, on both targets, and changes nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.quantization.onnxruntime import emit_onnxruntime
from fcn_deploy.quantization.tensorrt import emit_tensorrt
from tests.support.quantizable_graphs import outputs_in_float

EMITTERS = {"onnxruntime": emit_onnxruntime, "tensorrt": emit_tensorrt}
STEP = 1 / 16
# With these, both targets have activations in steps of 1/16; inputs that are such steps are not rounded.
RANGES = {
    "onnxruntime": {"a": Range(0, 255 * STEP), "logits": Range(0, 1)},
    "tensorrt": {"a": Range(-127 * STEP, 127 * STEP)},
}


def _model(nodes, channels, outputs, **constants):
    """image -> Identity -> a, which `nodes` read; they write the outputs."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["a"], "input"), *nodes],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, "h", "w_"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None, None, None]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return parse(model.SerializeToString())


def _conv(weights, bias, *, groups=1, stride=1):
    node = helper.make_node(
        *("Conv", ["a", "w"] if bias is None else ["a", "w", "b"], ["logits"], "conv"),
        group=groups,
        strides=[stride, stride],
    )
    constants = {"w": weights} if bias is None else {"w": weights, "b": bias}
    return _model([node], weights.shape[1] * groups, ["logits"], **constants)


def _image(random, channels, repeats=1, height=5, width=7):
    """Multiples of 1/16, each channel with another mean; every pixel `repeats` times in both directions."""
    most = random.integers(8, 128, channels)
    steps = random.integers(0, most[:, None, None] + 1, (2, channels, height, width))
    return np.kron(steps * STEP, np.ones((1, 1, repeats, repeats))).astype(np.float32)


def _means(image):
    return {"a": image.mean(axis=(0, 2, 3), dtype=np.float64)}


def _before_rounding(model, image):
    """The outputs before they are quantised themselves."""
    model = model.clone()
    for index, output in enumerate(model.graph.outputs):
        if output.producer().op_type == "DequantizeLinear":
            model.graph.outputs[index] = output.producer().inputs[0].producer().inputs[0]
    return outputs_in_float(model, image)


@settings(max_examples=60, deadline=None)
@given(
    target=st.sampled_from(sorted(EMITTERS)),
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 5), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    weight_size=st.sampled_from([1e-9, 1e-3, 1.0]),
    bias_size=st.sampled_from([None, 0.0, 1.0, 100.0]),
    seed=st.integers(0, 1000),
)
def test_bias_correction_keeps_the_mean_output_of_each_channel(
    target, groups, per_group, kernel, weight_size, bias_size, seed
):
    random = np.random.default_rng(seed)
    inputs, outputs = per_group
    weights = (weight_size * random.normal(size=(groups * outputs, inputs, kernel, kernel))).astype(np.float32)
    bias = None if bias_size is None else (bias_size * random.normal(size=groups * outputs)).astype(np.float32)
    model = _conv(weights, bias, groups=groups, stride=kernel)
    # Pixels are repeated as often as the kernel strides: all taps read the same values, whose mean is the channel's.
    image = _image(random, groups * inputs, kernel)
    (wanted,) = outputs_in_float(model, image)
    EMITTERS[target](model, RANGES[target], ["conv"], means=_means(image))
    (found,) = _before_rounding(model, image)
    shift = np.abs((found.astype(np.float64) - wanted).mean(axis=(0, 2, 3)))
    scale = next(constant_of(node.inputs[1]) for node in model.graph if node.name == "conv.weight/DequantizeLinear")
    rounding = STEP * scale / 2 if target == "onnxruntime" else 0  # of the bias, to 32 bits
    assert (shift <= rounding + 2e-6 * np.abs(wanted).max()).all()


@pytest.mark.parametrize("target", EMITTERS)
def test_without_bias_correction_the_mean_output_is_off_by_far_more(target):
    random = np.random.default_rng(0)
    weights, image = random.normal(size=(8, 16, 1, 1)).astype(np.float32), _image(random, 16)
    shifts = {}
    for corrected in (False, True):
        model = _conv(weights, None)
        (wanted,) = outputs_in_float(model, image)
        EMITTERS[target](model, RANGES[target], ["conv"], means=_means(image) if corrected else None)
        shifts[corrected] = np.abs((_before_rounding(model, image)[0] - wanted).mean(axis=(0, 2, 3))).max()
    assert shifts[True] < 0.1 * shifts[False]


def test_a_bias_too_large_for_its_channel_is_corrected_within_32_bits():
    """Nearly zero weights beside a large bias: they become zero, and their mean output goes to the bias."""
    weights, image = np.full((1, 2, 1, 1), 1e-9, np.float32), _image(np.random.default_rng(0), 2)
    model = _conv(weights, np.array([5], np.float32))
    emit_onnxruntime(model, RANGES["onnxruntime"], ["conv"], means=_means(image))
    (bias,) = (constant_of(node.inputs[0]) for node in model.graph if node.name == "conv.bias/DequantizeLinear")
    assert abs(int(bias[0])) <= 2**30
    np.testing.assert_allclose(_before_rounding(model, image)[0], 5, rtol=1e-6)


@pytest.mark.parametrize("target", EMITTERS)
def test_shared_weights_and_biases_do_not_change_for_other_layers(target):
    random = np.random.default_rng(1)
    weights, bias = random.normal(size=(4, 4, 1, 1)).astype(np.float32), random.normal(size=4).astype(np.float32)
    nodes = [helper.make_node("Conv", ["a", "w", "b"], [name], name) for name in ("logits", "other")]
    model, image = _model(nodes, 4, ["logits", "other"], w=weights, b=bias), _image(random, 4)
    before = outputs_in_float(model, image)
    EMITTERS[target](model, RANGES[target], ["logits"], means=_means(image))
    after = outputs_in_float(model, image)
    assert np.abs(after[0] - before[0]).max() > 1e-4
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(constant_of(model.graph.initializers["b"]), bias)


@pytest.mark.parametrize("target", EMITTERS)
@pytest.mark.parametrize("bias", [None, np.arange(4, dtype=np.float32)], ids=["no bias", "bias"])
def test_biases_stay_what_they_are_without_means_and_with_means_of_zero(target, bias):
    weights = np.random.default_rng(2).normal(size=(4, 4, 1, 1)).astype(np.float32)
    found = []
    for means in (None, {}, {"a": np.zeros(4)}):
        model = _conv(weights, bias)
        found.append(serialize(EMITTERS[target](model, RANGES[target], ["conv"], means=means)))
        (conv,) = (node for node in model.graph if node.op_type == "Conv")
        assert len(conv.inputs) == (2 if bias is None else 3)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("target", EMITTERS)
@pytest.mark.parametrize(
    ("means", "got"), [({"b": np.ones(4)}, "means of 1 other tensors"), ({"a": np.ones(5)}, "5 channels")]
)
def test_means_that_do_not_fit_are_refused(target, means, got):
    model = _conv(np.ones((4, 2, 1, 1), np.float32), None, groups=2)
    wanted = f"no means for tensor a, which conv reads; got {got}; expected 4 channels; fix: calibrate this model again"
    with pytest.raises(InputError, match=wanted):
        EMITTERS[target](model, RANGES[target], ["conv"], means=means)


@pytest.mark.parametrize("target", EMITTERS)
def test_a_bias_that_the_graph_computes_is_refused(target):
    nodes = [
        helper.make_node("Neg", ["b"], ["negative"], "negative"),
        helper.make_node("Conv", ["a", "w", "negative"], ["logits"], "conv"),
    ]
    constants = {"w": np.ones((4, 4, 1, 1), np.float32), "b": np.ones(4, np.float32)}
    models = [_model(nodes, 4, ["logits"], **constants) for _ in range(2)]
    with pytest.raises(InputError, match=r"the bias of conv cannot be corrected.*`bias_correction=False`"):
        EMITTERS[target](models[0], RANGES[target], ["conv"], means={"a": np.ones(4)})
    (conv,) = (node for node in EMITTERS[target](models[1], RANGES[target], ["conv"]).graph if node.op_type == "Conv")
    assert conv.inputs[2].name == "negative"
