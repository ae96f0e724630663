"""What is read of the layer table in a builder's log, in the words of TensorRT-RTX 1.7 and of TensorRT 10."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_deploy.engines.tensorrt.layer_table import LayerTableLog, read_layer_table
from fcn_deploy.errors import ArtifactError
from tests.support.layer_tables import RTX, TENSORRT, rtx_layer, table, trt_layer


def test_a_table_of_tensorrt_rtx():
    empty, conv, rest, pool = read_layer_table(RTX)
    assert (empty["LayerType"], empty["Inputs"], empty["Outputs"]) == ("shape_call", [], [])
    assert (conv["Name"], conv["LayerType"], conv["TacticName"]) == (
        "conv1_2_myl0_4",
        "correlation",
        "__myelin_CASK_STUB",
    )
    assert conv["Inputs"] == [
        {
            "Name": "__mye8997conv1_2/Conv_before_bias.1_110_myl0",
            "Dimensions": [-1, 64, -1, -1],
            "Datatype": "Int8",
            "Format": "(NHWC) Channel major format",
        }
    ]
    assert [each["Datatype"] for each in conv["Constants"]] == ["Int8", "Float"]
    assert conv["Outputs"][0]["Datatype"] == "Float"
    assert conv["Metadata"].startswith("[ONNX Layer: conv1_2]\x1f[ONNX Layer: conv1_1/Relu/DequantizeLinear]")
    assert rest["TacticName"].endswith("_vec")
    assert pool["Metadata"] == "[ONNX Layer: pool1/MaxPool]"


def test_a_table_of_tensorrt_10():
    copy, conv, quantize, int8 = read_layer_table(TENSORRT)
    assert (copy["ParameterType"], copy["Origin"], quantize["Origin"]) == ("Reformat", "REFORMAT", "QDQ")
    assert copy["Outputs"][0]["Name"] == "Reformatted Input Tensor 0 to conv1_1 + conv1_1/Relu"
    assert conv["Weights"] == {"Type": "Half", "Count": 1728}
    assert conv["TacticName"].startswith("sm80_xmma")
    assert conv["TacticName"].endswith("tilesize128x32x64")
    assert conv["Metadata"] == "[ONNX Layer: conv1_1]\x1e[ONNX Layer: conv1_1/Relu]"
    assert "Constants" not in conv
    assert int8["Inputs"][0]["Format/Datatype"] == "Thirty-two wide channel vectorized row major Int8 format"


def test_a_tensor_of_no_sizes_and_an_arbitrary_format():
    line = rtx_layer("scale", "kgen", ["a fp32 "], ["b fp16 1,2,3,4"])
    line = line.replace("(NHWC) Channel major format", "(Arbitrary) Format with stride order = [2,3,1,0]")
    (layer,) = read_layer_table(table(line))
    assert layer["Inputs"][0]["Dimensions"] == []
    assert layer["Outputs"][0]["Format"] == "(Arbitrary) Format with stride order = [2,3,1,0]"


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" ,:[]{}+"), min_size=1)


@given(NAMES, NAMES)
@pytest.mark.parametrize("write", [rtx_layer, trt_layer])
def test_any_name_comes_back_or_is_refused(write, name, tensor):
    line = write(f"n{name}", "correlation", [f"t{tensor} int8 1,2"], ["out fp16 1,2"])
    try:
        (layer,) = read_layer_table(table(line))
    except ArtifactError:
        # Only a name that looks like a part of the table is.
        assert any(mark in text for text in (name, tensor) for mark in ("{", "}", "]", ", ", "["))
        return
    assert (layer["Name"], layer["Inputs"][0]["Name"]) == (f"n{name}", f"t{tensor}")


@pytest.mark.parametrize(
    "text",
    [
        "Engine Layer Information:\nLayer(CaskConvolution): conv1, Tactic: 0x0, image[Half(1,3)] -> out[Half(1,3)]",
        "Layers:",
        table("conv1_1", "conv1_2"),  # without detailed verbosity
        table(rtx_layer("a", "kgen", ["a fp16 1"], ["b fp16 1"]).replace("Outputs", "Results")),
        table(rtx_layer("a", "kgen", ["a fp16 1"], ["b fp16 1"]).replace("Datatype", "Kind").replace("Format", "F")),
        table(rtx_layer("a", "kgen", ["a fp16 one"], ["b fp16 1"])),
        table(rtx_layer("a", "kgen", ["a fp16 1"], ["b fp16 1"]).replace(" }], Constants", " , more: 1}], Constants")),
        RTX.replace("Name: conv1_2_myl0_4", "Title: conv1_2"),
        RTX[: RTX.index("Name: __mye8902_pooling")],  # half of it: whole lines, and not all of them
        TENSORRT[: TENSORRT.index("Bindings")],
    ],
)
def test_another_form_is_not_understood(text):
    with pytest.raises(ArtifactError, match="layer table in the log is not understood"):
        read_layer_table(text)


def test_the_last_table_of_a_log_is_kept():
    log = LayerTableLog()
    for message in ("Layer: conv", "Layers:\na", "Engine generation completed", RTX, "=== Layers: 3"):
        log.hear(message)
    assert log.text == RTX
