"""The plain values that are made of an inspector's answer and of a log."""

import json
from dataclasses import replace

import pytest

from fcn_deploy.artifacts.plan import Plan, PlanTensor
from fcn_deploy.engines.tensorrt.inspector import inspected_layers, layer_precisions
from fcn_deploy.engines.tensorrt.layer_table import read_layer_table
from fcn_deploy.engines.tensorrt.plan_reader import read_plan
from fcn_deploy.errors import ArtifactError
from tests.support.layer_tables import RTX, TENSORRT, rtx_layer, table


def test_layers_and_tensors_of_tensorrt_rtx():
    plan = read_plan(read_layer_table(RTX), "log")
    _, conv, rest, pool = plan.layers
    assert (conv.kind, conv.kernel) == ("correlation", "")  # which is chosen when the plan is loaded
    assert conv.nodes == ("conv1_2", "conv1_1/Relu/DequantizeLinear", "conv1_2.weight/DequantizeLinear")
    assert conv.writes == rest.reads
    assert rest.kernel.startswith("__myl_MulCastAddRelu")
    assert plan.tensors[conv.reads[0]] == PlanTensor("int8", (-1, 64, -1, -1), "NHWC")
    assert plan.tensors[pool.writes[0]].type == "int8"
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_layers_and_tensors_of_tensorrt_10():
    plan = read_plan(read_layer_table(TENSORRT), "log")
    copy, conv, quantize, int8 = plan.layers
    assert [layer.kind for layer in plan.layers] == ["Reformat", "CaskConvolution", "Quantize", "CaskConvolution"]
    assert copy.nodes == ("Reformatting CopyNode for Input Tensor 0 to conv1_1", "conv1_1/Relu")
    assert conv.nodes == ("conv1_1", "conv1_1/Relu")
    assert plan.tensors["conv1_1/Relu"] == PlanTensor("fp16", (1, 64, 64, 64), "Half")
    assert plan.tensors[int8.reads[0]].type == "int8"
    assert quantize.reads == conv.writes


def test_the_inspector_and_the_log_give_the_same():
    layers = read_layer_table(RTX)
    told = inspected_layers(json.dumps({"Layers": layers, "I/O Tensors": []}))
    assert read_plan(told, "inspector") == replace(read_plan(layers, "log"), source="inspector")


@pytest.mark.parametrize(("text", "expected"), [(RTX, "int8"), (TENSORRT, "int8")])
def test_what_a_convolution_runs_in_is_read_from_the_log(text, expected):
    assert layer_precisions(read_layer_table(text), ["conv1_2"]) == {"conv1_2": expected}


def test_weights_that_are_dequantised_on_every_run_are_not_int8():
    conv = rtx_layer(
        "conv1_2_myl0_4",
        "correlation",
        ["x fp16 1,64,64,64", "w fp16 64,64,3,3"],
        ["y fp16 1,64,64,64"],
        ["conv1_2"],
        constants=["alpha fp32 1"],
    )
    weights = rtx_layer("w", "kgen", [], ["w fp16 64,64,3,3"], ["conv1_2.weight/DequantizeLinear"])
    assert layer_precisions(read_layer_table(table(weights, conv)), ["conv1_2"]) == {"conv1_2": "fp16"}


def test_the_image_of_two_profiles_is_two_tensors():
    first, second = (
        rtx_layer(f"cast_myl{part}_0", "kgen", [f"image uint8 1,{size},{size},3"], [f"x{part} fp16 1,4,{size},{size}"])
        for part, size in enumerate((64, 32))
    )
    plan = read_plan(read_layer_table(table(first, second)), "log")
    assert [plan.tensors[layer.reads[0]].shape for layer in plan.layers] == [(1, 64, 64, 3), (1, 32, 32, 3)]


def test_a_type_that_is_not_known_is_said_to_be_unknown():
    plan = read_plan(read_layer_table(table(rtx_layer("a", "kgen", ["x Fancy7 1"], ["y Bool 1"]))), "log")
    assert [tensor.type for tensor in plan.tensors.values()] == ["unknown", "bool"]


@pytest.mark.parametrize("layer", [{"LayerType": "kgen"}, {"Name": "a", "LayerType": "b", "Inputs": [{"Name": "x"}]}])
def test_a_layer_without_its_keys_is_not_understood(layer):
    with pytest.raises(ArtifactError, match="the layers of the plan are not understood"):
        read_plan([layer], "inspector")
