"""Prequantized models: how they are recognised, and which of them a target would compute wrongly."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.calibration.observer import observe
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import load_exported, parse
from fcn_deploy.quantization.prequantized import (
    check_not_prequantized,
    check_scales_of_base,
    integer_weights,
    is_prequantized,
    saturating_weights,
)

CONVS = 18


@pytest.fixture
def load(quantized):
    return lambda scheme: parse(quantized(scheme).read_bytes())


def test_a_graph_with_qdq_is_prequantized_and_a_float_graph_is_not(load, exported):
    assert is_prequantized(load("reduced"))
    assert not is_prequantized(parse(exported("fcn8s").read_bytes()))


def test_a_graph_with_qdq_inside_a_function_is_prequantized():
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    pair = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 5, 7]) for name in ("image", "logits")
    )
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    graph = helper.make_graph(
        [helper.make_node("Pair", ["image", "scale"], ["logits"], domain="local")], "g", [image], [logits], [scale]
    )
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        functions=[helper.make_function("local", "Pair", ["x", "s"], ["y"], pair, opsets[:1])],
        ir_version=10,
    )
    assert is_prequantized(parse(model.SerializeToString()))


def test_integer_operators_are_refused_with_a_fix(load):
    with pytest.raises(InputError, match=r"got .*QLinearConv.*QuantFormat\.QDQ") as caught:
        is_prequantized(load("operators"))
    assert caught.value.exit_code == 6


def test_a_prequantized_model_cannot_be_calibrated(load, quantized, exported, photos):
    with pytest.raises(InputError, match="quantised already, with scales of its own") as caught:
        observe(load_exported(quantized("reduced")), photos[:1])
    assert caught.value.exit_code == 6
    assert 'build its engine with `precision="int8"`' in str(caught.value)
    check_not_prequantized(parse(exported("fcn8s").read_bytes()))


def test_the_integer_weights_of_each_layer_are_found(load):
    found = integer_weights(load("tensorrt").graph)
    assert len(found) == CONVS
    assert {str(value.dtype) for value in found.values()} == {"INT8"}
    assert constant_of(found["conv1_2"]).shape == (4, 4, 3, 3)
    assert len(integer_weights(load("defaults").graph)) == CONVS + 3


def test_a_layer_that_reads_floats_has_no_integer_weights(load):
    model = load("tensorrt")
    conv = next(node for node in model.graph if node.name == "conv1_1")
    conv.replace_input_with(0, model.graph.inputs[0])
    assert "conv1_1" not in integer_weights(model.graph)


def test_8_bit_weights_saturate_and_7_bit_weights_do_not(load):
    assert len(saturating_weights(load("full").graph, 64)) == CONVS
    assert saturating_weights(load("reduced").graph, 64) == {}


def test_uint8_weights_and_transposed_convolutions_do_not_saturate(load):
    assert saturating_weights(load("unsigned").graph, 64) == {}
    assert not any(name.startswith("up") for name in saturating_weights(load("defaults").graph, 64))


@pytest.mark.parametrize(
    ("largest", "limit", "saturates"),
    [
        (64, 64, False),
        (65, 64, True),
        (-64, 64, False),
        (-65, 64, True),
        (-128, 64, True),
        (127, 127, False),
        (-127, 127, False),
        (-128, 127, True),
    ],
)
def test_weights_saturate_beyond_the_limit(quantized, largest, limit, saturates):
    proto = onnx.load(quantized("reduced"))
    weights = next(each for each in proto.graph.initializer if each.name == "conv1_2.0.weight_quantized")
    array = numpy_helper.to_array(weights).copy()
    array.flat[7] = largest
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    assert ("conv1_2" in saturating_weights(parse(proto.SerializeToString()).graph, limit)) == saturates


def test_scales_that_fp16_would_round_are_refused_by_name(load):
    with pytest.raises(UsageError, match=r'got conv1_1.*_scale, .* more; .*fix: build with `base="fp32"`'):
        check_scales_of_base(load("tensorrt").graph, "fp16")
    with pytest.raises(UsageError, match="BF16 would round scales"):
        check_scales_of_base(load("tensorrt").graph, "bf16")


def test_scales_that_fp16_holds_are_accepted(quantized):
    proto = onnx.load(quantized("tensorrt"))
    for each in proto.graph.initializer:
        if each.name.endswith("_scale"):
            fp16 = numpy_helper.to_array(each).astype(np.float16).astype(np.float32)
            each.CopyFrom(numpy_helper.from_array(fp16, each.name))
    check_scales_of_base(parse(proto.SerializeToString()).graph, "fp16")
