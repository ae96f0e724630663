"""Emission for OpenVINO: where Q/DQ stand, what the integers are, and that the numbers are right."""

from collections import Counter

import numpy as np
import pytest

from fcn_deploy.artifacts.ranges import Range, Ranges
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import parse
from fcn_deploy.passes.pipelines import before_openvino_integers
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.openvino import emit_openvino
from fcn_deploy.quantization.selection import float_by_default, quantizable_layers
from tests.support.quantizable_graphs import make_node, model_of, outputs_in_float, residual, weights

WIDE = Range(-30.0, 30.0)


def reads(model):
    return {node.name: [value.name for value in node.inputs] for node in model.graph}


def constants(model, kind):
    """The first inputs of DequantizeLinear that are constants of weights, or the zero points of activations."""
    found = {}
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and ("weight" in node.name) == (kind == "weights"):
            found[node.name] = constant_of(node.inputs[0 if kind == "weights" else 2])
    return found


@pytest.fixture
def quantized(exported, ranges_file):
    def quantize(scheme=None, means=None):
        model = parse(exported("fcn8s").read_bytes())
        layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
        ranges = choose(Ranges.load(ranges_file("fcn8s")).histograms, "minmax", symmetric=False)
        return emit_openvino(model, ranges, layers, scheme, means), layers

    return quantize


def test_a_pair_stands_before_each_tensor_that_quantised_convolutions_read_and_nowhere_else(quantized):
    model, layers = quantized()
    found = reads(model)
    for layer in layers:
        assert found[layer][1] == f"{layer}.weight/DequantizeLinear"
        assert not found[layer][2].endswith("/DequantizeLinear")  # the bias
    kinds = Counter(node.op_type for node in model.graph)
    assert len(layers) == 14
    assert kinds["QuantizeLinear"] == 14 + 5  # and before the pools, so that they run on integers
    assert found["pool1/MaxPool"] == ["conv1_2/Relu/DequantizeLinear"]
    assert found["conv2_1"][0] == "pool1/MaxPool/DequantizeLinear"
    # What no quantised layer reads is not rounded, and the image stays as it is.
    assert found["score_fr"][0] == "relu7/Relu"
    assert found["conv1_1"][0] == "image"


def test_weights_are_symmetric_and_activations_asymmetric(quantized):
    model, _ = quantized()
    found = constants(model, "weights")
    assert len(found) == 14
    for integers in found.values():
        assert integers.dtype == np.int8
        np.testing.assert_array_equal(np.abs(integers.astype(int)).max((1, 2, 3)), 127)
    assert {array.dtype for array in constants(model, "activations").values()} == {np.dtype(np.uint8)}


def test_7_bits_are_a_choice(quantized):
    model, _ = quantized(CpuScheme(64, "correlated"))
    assert max(np.abs(integers.astype(int)).max() for integers in constants(model, "weights").values()) == 64
    with pytest.raises(InputError, match="bad weight limit; got 100; expected 64 or 127"):
        CpuScheme(100)
    with pytest.raises(UsageError, match="rounding"):
        CpuScheme(127, "up")


def test_biases_are_corrected_by_the_means(quantized, ranges_file):
    means = Ranges.load(ranges_file("fcn8s")).means
    model, layers = quantized(means=means)
    corrected = {name for name, inputs in reads(model).items() if inputs[-1].endswith(".bias/corrected")}
    assert corrected == layers


@pytest.mark.parametrize("identity", [True, False])
def test_a_residual_sum_is_rounded_once_after_its_rectifier(identity):
    model = residual(identity)
    image = np.random.default_rng(1).normal(size=(1, 4, 16, 16)).astype(np.float32)
    (wanted,) = outputs_in_float(model, image)
    layers = set(quantizable_layers(model.graph)) - float_by_default(model.graph)
    ranges = {value.name: WIDE for node in model.graph for value in node.outputs}
    emit_openvino(model, ranges, layers)
    found = reads(model)
    # Conv, Add and ReLU are one kernel: nothing stands between them.
    assert found["sum"] == (["c2", "r0"] if identity else ["past", "c2"])
    assert found["block"] == ["sum"]
    assert found["c4"][0] == "block/DequantizeLinear"
    (got,) = outputs_in_float(model, image)
    assert np.abs(got - wanted).max() < 0.1 * np.ptp(wanted)


def test_a_float_layer_reads_what_a_float_layer_made_before_it_was_rounded():
    nodes = [
        make_node("Conv", "image w0", "c0"),
        make_node("Relu", "c0", "r0"),
        make_node("Conv", "r0 w1", "c1"),
        make_node("Conv", "r0 w2", "c2"),
        make_node("Add", "c1 c2", "sum"),
        make_node("Conv", "sum w3", "logits"),
    ]
    model = model_of(nodes, **{f"w{index}": weights(index) for index in range(4)})
    emit_openvino(model, {"r0": WIDE}, ["c1"])
    found = reads(model)
    assert (found["c1"][0], found["c2"][0]) == ("r0/DequantizeLinear", "r0")


def test_a_float_layer_reads_the_rounded_tensor_of_an_integer_kernel():
    nodes = [
        make_node("Conv", "image w0", "c0"),
        make_node("Conv", "c0 w1", "c1"),
        make_node("Relu", "c1", "r1"),
        make_node("Conv", "r1 w2", "c2"),
        make_node("Conv", "r1 w3", "c3"),
        make_node("Add", "c2 c3", "logits"),
    ]
    model = model_of(nodes, **{f"w{index}": weights(index) for index in range(4)})
    emit_openvino(model, {"c0": WIDE, "r1": WIDE}, ["c1", "c2"])
    found = reads(model)
    assert (found["c2"][0], found["c3"][0]) == ("r1/DequantizeLinear", "r1/DequantizeLinear")


def test_subpixels_are_rounded_before_they_are_put_in_their_places():
    nodes = [
        make_node("Conv", "image w0", "c0"),
        make_node("ConvTranspose", "c0 w1", "u1", strides=[2, 2], pads=[0, 0, 1, 1]),
        make_node("Relu", "u1", "r1"),
        make_node("Conv", "r1 w2", "c2"),
        make_node("Conv", "c2 w3", "logits"),
    ]
    up = np.random.default_rng(1).normal(size=(4, 4, 2, 2)).astype(np.float32)
    model = model_of(nodes, w1=up, **{f"w{index}": weights(index) for index in (0, 2, 3)})
    image = np.random.default_rng(1).normal(size=(1, 4, 16, 16)).astype(np.float32)
    (wanted,) = outputs_in_float(model, image)
    before_openvino_integers(["u1"])(model)
    # Calibration saw what the net has: not the subpixels before they were put in their places.
    emit_openvino(model, {"c0": WIDE, "r1": WIDE}, ["u1", "c2"])
    kinds = [node.op_type for node in model.graph if node.op_type != "DequantizeLinear"]
    assert kinds == [
        *("Conv", "QuantizeLinear", "Conv", "Relu"),
        *("QuantizeLinear", "DepthToSpace", "QuantizeLinear", "Slice", "QuantizeLinear"),
        *("Conv", "Conv"),
    ]
    (got,) = outputs_in_float(model, image)
    assert np.abs(got - wanted).max() < 0.05 * np.ptp(wanted)


def test_a_tensor_without_a_range_is_named(exported):
    model = parse(exported("fcn8s").read_bytes())
    with pytest.raises(InputError, match="no range for tensor"):
        emit_openvino(model, {}, ["conv4_2"])
    with pytest.raises(InputError, match="cannot be quantised; got upscore8"):
        emit_openvino(model, {}, ["upscore8"])
