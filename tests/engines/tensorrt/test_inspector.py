"""What is read off an engine inspector's JSON: samples written by hand, in the words of TensorRT 10, 11 and RTX."""

import json

import pytest

from fcn_deploy.engines.tensorrt.inspector import inspected_layers, layer_precisions
from fcn_deploy.errors import ArtifactError

INT8 = "sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_i8i8_i8i32_f32_nhwckrsc_nhwc_tilesize128x64x64"
HALF = "sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x32"
TF32 = "sm80_xmma_fprop_implicit_gemm_indexed_f32f32_tf32f32_f32_nhwckrsc_nhwc"


def of(kind, *types):
    """The tensors of a layer in the words of version 10, or of 11."""
    if kind == 10:
        return [{"Name": f"t{index}", "Format/Datatype": each} for index, each in enumerate(types)]
    return [
        {"Name": f"t{index}", "Format": "Row major linear format (kLINEAR)", "DataType": each}
        for index, each in enumerate(types)
    ]


def conv(name, *inputs, weights=None, tactic="", metadata=(), version=10, kind="CaskConvolution", **more):
    layer = {"Name": name, "LayerType": kind, "Inputs": of(version, *inputs), "Outputs": of(version, "Half"), **more}
    if weights:
        layer["Weights"] = {"Type": weights, "Count": 9}
    if metadata:
        layer["Metadata"] = "\x1e".join(f"[ONNX Layer: {node}]" for node in metadata)
    return layer | {"TacticName": tactic}


def read(*layers, names=("conv1_1",), version=10):
    ends = {"Bindings": ["image", "labels"]} if version == 10 else {"I/O Tensors": [{"Name": "image"}]}
    return layer_precisions(inspected_layers(json.dumps({"Layers": list(layers), **ends})), names)


@pytest.mark.parametrize("version", [10, 11])
def test_an_int8_net_of_either_version(version):
    found = read(
        conv("conv1_1 + conv1_1/Relu", "Half", weights="Half", version=version),
        conv(
            "conv1_2.weight + conv1_2/weight_QuantizeLinear + conv1_2 + conv1_2/Relu",
            "Int8",
            weights="Int8",
            version=version,
            metadata=["conv1_2/weight_QuantizeLinear", "conv1_2", "conv1_2/Relu"],
        ),
        conv("score", "Half", weights="Half", version=version, kind="CaskDeconvolution", metadata=["upscore8"]),
        {"Name": "pool1", "LayerType": "CaskPooling", "Inputs": of(version, "Int8"), "Outputs": of(version, "Int8")},
        names=("conv1_1", "conv1_2", "upscore8", "conv5_3"),
        version=version,
    )
    assert found == {"conv1_1": "fp16", "conv1_2": "int8", "upscore8": "fp16", "conv5_3": None}
    assert list(found) == ["conv1_1", "conv1_2", "upscore8", "conv5_3"]


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ("Int8", "int8"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Channel major INT8 format where channel % 16 == 0", "int8"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Row major linear FP8 format", "fp8"),
        ("Unknown format", None),
        ("N/A due to dynamic shapes", None),
    ],
)
def test_the_words_for_a_type(words, precision):
    assert read(conv("conv1_1", words))["conv1_1"] == precision


def test_the_kernel_says_more_than_its_tensors():
    assert read(conv("conv1_1", "Int8", "Float", "Half", tactic=INT8))["conv1_1"] == "int8"
    assert read(conv("conv1_1", "Int8", weights="Int8", tactic=HALF))["conv1_1"] == "fp16"
    assert read(conv("conv1_1", "Float", weights="Float", tactic=TF32))["conv1_1"] == "tf32"
    assert read(conv("conv1_1", "Half", tactic="__myl_ConvAddRelu_0x4f16f16"))["conv1_1"] == "fp16"


def test_int8_weights_alone_do_not_make_a_layer_int8():
    assert read(conv("conv1_1", "Half", weights="Int8"))["conv1_1"] == "fp16"
    assert read(conv("conv1_1", "Int8", weights="Float"))["conv1_1"] == "fp32"


def test_a_residual_is_not_what_a_layer_computes_in():
    assert read(conv("conv1_1", "Int8", "Half", weights="Int8"))["conv1_1"] == "int8"


def test_what_moves_the_data_of_a_layer_is_not_the_layer():
    copy = conv("conv1_1", "Float", kind="Reformat", metadata=["conv1_1"])
    noop = conv("conv1_1", "Float", kind="NoOp")
    assert read(copy, noop)["conv1_1"] is None
    assert read(copy, conv("conv1_1 + conv1_1/Relu", "Int8", weights="Int8"), noop)["conv1_1"] == "int8"
    assert read(conv("Reformatting CopyNode for Input Tensor 0 to conv1_1", "Float"))["conv1_1"] is None


def test_a_name_within_a_name_is_another_layer():
    assert read(conv("conv1_10 + xconv1_1 + conv1_1/Relu", "Int8"))["conv1_1"] is None
    assert read(conv("conv1_1", "Int8", metadata=["conv2_1"]))["conv1_1"] is None, "metadata is the better witness"


def test_of_several_profiles_the_widest_counts():
    layers = (conv("conv1_1 + conv1_1/Relu", "Int8"), conv("conv1_1 + conv1_1/Relu [profile 1]", "Half"))
    assert read(*layers)["conv1_1"] == "fp16"
    assert read(layers[0], layers[0] | {"Name": "conv1_1 [profile 1]"})["conv1_1"] == "int8"
    assert read(layers[0], conv("conv1_1 [profile 1]", "Unknown format"))["conv1_1"] is None


def test_layers_side_by_side_are_both_found():
    assert read(conv("conv1_1 || conv2_1", "Half"), names=("conv1_1", "conv2_1")) == {
        "conv1_1": "fp16",
        "conv2_1": "fp16",
    }


def test_a_generated_kernel_tells_only_where_all_its_tensors_agree():
    def kernel(*types, out="Half", **more):
        layer = conv("__myl_Fc_myl0_3", *types, kind="kgen", metadata=["conv1_1", "conv1_1/Relu"], **more)
        return layer | {"Outputs": of(10, out)}

    assert read(kernel("Half"))["conv1_1"] == "fp16"
    assert read(kernel("Int8", out="Half"))["conv1_1"] is None
    assert read(kernel("Int8", out="Half", tactic=INT8))["conv1_1"] == "int8"
    assert read(kernel("Half"), conv("c", "Int8", kind="correlation", metadata=["conv1_1"]))["conv1_1"] == "int8"


def test_separators_that_are_not_escaped_are_read():
    text = json.dumps({"Layers": [conv("x", "Half", metadata=["conv1_1", "conv1_1/Relu"])]})
    assert "\\u001e" in text
    for raw in (text, text.replace("\\u001e", "\x1e"), text.replace("\\u001e", "\x1f")):
        assert layer_precisions(inspected_layers(raw), ["conv1_1"]) == {"conv1_1": "fp16"}


def test_an_engine_that_lists_names_alone_tells_nothing():
    assert read("conv1_1 + conv1_1/Relu") == {"conv1_1": None}


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "null", '{"Layer": []}'])
def test_what_no_inspector_says_is_an_artifact_error(text):
    with pytest.raises(ArtifactError, match="inspector's answer cannot be read"):
        layer_precisions(inspected_layers(text), ["conv1_1"])
