"""The lowering of each target: which rewrites, in which order."""

import pytest

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.passes import pipelines

SPEC = ModelSpec("net", None, None, 1, ("thing",), ((0, 0, 0),), geometry=None, model="nets:Net")
CPU = ["RewritePRelu", "RewriteUpsampling", "Winograd", "QuantizeChannelsLast", "KeepCubicResize"]


def names(lowering):
    return [type(step).__name__ for step in lowering.passes]


def test_an_exported_model_is_only_named_and_states_no_shapes_of_its_own_tensors():
    assert names(pipelines.after_torch()) == ["NameLayers", "NameDims", "ForgetShapes"]
    assert all(step.keeps_numbers for step in pipelines.after_torch().passes)


def test_a_model_of_another_tool_is_converted_before_it_is_named():
    found = names(pipelines.adopted("nhwc", (1, None, None), "nchw", 5, "bilinear"))
    steps = ["RaiseOpset", "InlineAndFold", "ToFp32", "ReserveNames", "TakeImage", "TakeLogits"]
    last = ["InferTypes", "ForgetShapes", "NameLayers", "UniqueNames", "RemoveUnusedNodesPass"]
    assert found == [*steps, *last]
    found = names(pipelines.adopted("nhwc", (1, None, None), "nchw", 5, "bilinear", Padding(8)))
    assert found == [*steps, "PadToMultiple", *last]


def test_the_integers_of_a_prequantized_model_are_kept():
    steps = (*pipelines.prequantized().passes, *pipelines.onnxruntime_cpu_integers(()).passes)
    assert [type(step).__name__ for step in steps] == ["InlineAndFold", "FoldQuantizedWeights", "ToUint8"]
    assert all(step.keeps_numbers for step in steps)


def test_an_engine_for_a_cpu_takes_tensors_or_images():
    last = ["RemoveUnusedNodesPass", "ForgetShapes"]
    assert names(pipelines.onnxruntime_cpu(None)) == [*CPU, *last]
    images = ["ImageInput", "LabelOutput", "EarlyArgmax"]
    assert names(pipelines.onnxruntime_cpu(SPEC)) == [*CPU, *images, *last]


@pytest.mark.parametrize(
    ("base", "quantized", "typing"),
    [
        ("fp32", None, []),
        ("fp32", "int8", []),
        ("fp32", "fp8", ["RaiseOpset"]),
        ("fp16", None, ["ToFp16"]),
        ("fp16", "int8", ["RaiseOpset", "ToFp16"]),
        ("fp16", "fp8", ["RaiseOpset", "ToFp16"]),
        ("bf16", None, ["ToBf16"]),
        ("bf16", "int8", ["RaiseOpset", "ToBf16"]),
    ],
)
def test_a_typed_graph_finds_labels_in_its_base_and_normalises_in_fp32(base, quantized, typing):
    last = ["RemoveUnusedNodesPass", "ForgetShapes"]
    assert names(pipelines.tensorrt(base, None, quantized=quantized)) == [*typing, *last]
    found = names(pipelines.tensorrt(base, SPEC, quantized=quantized))
    assert found == ["LabelOutput", "EarlyArgmax", *typing, "ImageInput", *last]


def test_a_simulation_drops_the_16_bit_constants():
    assert names(pipelines.simulation()) == ["SimulateRounding", "KeepRectifiers", "RemoveUnusedNodesPass"]
