"""What layers run in is found in the nodes that OpenVINO made of them, and compared where the engine is opened."""

from dataclasses import replace

import pytest

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import EngineFile, Sidecar, Source
from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime.openvino import library, precisions
from fcn_deploy.runtime.openvino.backend import ExecutedNode
from fcn_deploy.runtime.openvino.precisions import check_precisions, layer_precisions

NODES = (
    ExecutedNode(("image/Add",), "Eltwise", "u8"),
    ExecutedNode(("conv1", "conv1/Relu"), "Convolution", "f32"),
    ExecutedNode(("conv2", "pool"), "Convolution", "u8"),
    ExecutedNode(("conv3/WithoutBiases",), "Convolution", "i8"),
    ExecutedNode(("conv3", "conv3/Relu"), "Eltwise", "f32"),
    ExecutedNode(("up",), "Deconvolution", "bf16"),
    ExecutedNode(("conv4", "labels"), "Convert", "f32"),
)


def test_layers_are_found_in_the_nodes_they_were_fused_into():
    found = layer_precisions(NODES, ["conv1", "conv2", "conv3", "up", "conv4", "conv5"])
    assert found == {"conv1": "fp32", "conv2": "int8", "conv3": "int8", "up": "bf16", "conv4": None, "conv5": None}


@pytest.fixture
def built(make_spec, monkeypatch):
    monkeypatch.setattr(library, "version", lambda: "2025.0.0")

    def make(layers, achieved=None):
        precision = Precision("int8", "fp32", layers=layers, achieved_layers=layers if achieved is None else achieved)
        source, target = Source("0"), {"cpu": "vnni", "gpu": []}
        return Sidecar(
            EngineFile("net.onnx", "0", 1), "openvino", "2026.4.1", "image", precision, make_spec(), source, target
        )

    return make


def test_an_engine_that_runs_as_it_was_built_passes(built):
    check_precisions(NODES, built({"conv1": "fp32", "conv2": "int8", "conv3": "int8"}), "net.onnx")
    # A layer that did not run as asked where it was built may do so here, or in a third precision.
    check_precisions(NODES, built({"conv2": "int8", "up": "bf16"}, {"conv2": "int8", "up": "fp32"}), "net.onnx")
    check_precisions(NODES, built({"conv1": "bf16"}, {"conv1": "fp32"}), "net.onnx")
    check_precisions(NODES, built({"conv5": "int8"}), "net.onnx")  # this version does not tell of it
    check_precisions(NODES, replace(built({"conv2": "int8"}), precision=Precision("int8", "fp32")), "net.onnx")


@pytest.mark.parametrize(("layer", "asked", "runs"), [("conv1", "int8", "FP32"), ("up", "fp32", "BF16")])
def test_a_layer_that_runs_in_something_else_than_where_it_was_built_is_refused(built, layer, asked, runs):
    with pytest.raises(ArtifactError, match=f"got {layer} in {runs}; expected {layer} in {asked.upper()}") as caught:
        check_precisions(NODES, built({layer: asked, "conv2": "int8"}), "net.onnx")
    assert caught.value.exit_code == 5
    assert "install openvino==2026.4.1" in str(caught.value)


def test_int8_on_arm_is_for_onnxruntime(built, monkeypatch):
    monkeypatch.setattr(precisions, "is_arm64", lambda: True)
    with pytest.raises(ArtifactError, match='fix: build it with `backend="onnxruntime"`: on Arm OpenVINO has few INT8'):
        check_precisions(NODES, built({"conv1": "int8"}), "net.onnx")
    with pytest.raises(ArtifactError, match="fix: install openvino"):
        check_precisions(NODES, built({"up": "fp32"}), "net.onnx")
