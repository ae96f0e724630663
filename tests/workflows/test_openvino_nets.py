"""Nets of every form go the whole way in OpenVINO: PReLU, transposed convolutions, residuals, one channel, one size."""

import json

import numpy as np
import pytest
import torch

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.runtime import Segmenter
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.verifying import verify
from tests.support import custom_nets
from tests.support.openvino import needs_bf16, needs_openvino

pytestmark = needs_openvino
SCALED = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "scale": 1 / 255}


NETS = {
    "signed": ("tests.support.custom_nets:Signed", custom_nets.Signed),
    "residual": ("tests.support.custom_nets:ResNetFCN", custom_nets.ResNetFCN),
    "depthwise": ("tests.support.custom_nets:Depthwise", custom_nets.Depthwise),
    "binary": ("tests.support.custom_nets:OneLogit", custom_nets.OneLogit),
    "sigmoid": ("tests.support.custom_nets:OneProbability", custom_nets.OneProbability),
    "pooling": ("tests.support.custom_nets:PyramidPooling", custom_nets.PyramidPooling),
}


@pytest.fixture
def net(tmp_path):
    def make(name, **options):
        path, kind = NETS[name]
        torch.manual_seed(0)
        made = kind() if issubclass(kind, custom_nets.OneLogit) else custom_nets.trained(kind())
        torch.save(made.state_dict(), tmp_path / "w.pth")
        return export(tmp_path / "w.pth", model=path, **SCALED, **options)

    return make


@pytest.mark.parametrize(
    "name", [name if name == "signed" else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def test_fp32_agrees_with_the_exported_model_and_int8_nearly(net, name, photo_folder, tmp_path):
    model = net(name)
    fp32 = build_engine(model, backend="openvino", output=tmp_path / "net.fp32.onnx")
    assert fp32.sidecar.precision.achieved == "fp32"
    found = verify(tmp_path / "net.fp32.onnx", model, photo_folder)
    assert found.parity.agreement > 0.9999
    ranges = calibrate(model, photo_folder)
    int8 = build_engine(model, precision="int8", ranges=ranges, backend="openvino", output=tmp_path / "net.int8.onnx")
    precision = int8.sidecar.precision
    assert "int8" in precision.layers.values()
    assert precision.layers.get("up", "int8") == "int8"  # a transposed convolution with learned weights
    assert precision.achieved_layers == precision.layers
    assert verify(int8, model, photo_folder).parity.agreement > 0.85
    least = model.spec.min_size
    with Segmenter(tmp_path / "net.int8.onnx", threads=1) as segmenter:
        for shape in (ImageShape(1, 1, 1), ImageShape(3, 33, 65)):
            size = shape.at_least(least)
            images = np.zeros((size.batch, size.height, size.width, 3), np.uint8)
            assert segmenter(images).shape == images.shape[:3]


@pytest.mark.slow
def test_a_model_of_one_size_keeps_it(net, photo_folder, tmp_path):
    model = net("depthwise", shape="1x40x56")
    build_engine(model, backend="openvino", output=tmp_path / "net.onnx")
    with Segmenter(tmp_path / "net.onnx") as segmenter:
        assert segmenter.fixed_shape == ImageShape(1, 40, 56)
        assert segmenter(np.zeros((40, 56, 3), np.uint8)).shape == (40, 56)
        with pytest.raises(ValueError, match="wrong shape"):
            segmenter(np.zeros((41, 56, 3), np.uint8))


@pytest.mark.slow
@needs_bf16
def test_deploy_builds_verifies_and_measures_for_openvino(tmp_path):
    from fcn_deploy.demo import CALIBRATION_SEEDS, checkpoint_path, write_scenes

    write_scenes(tmp_path / "scenes", CALIBRATION_SEEDS[:10], (96, 128))
    quick = {"warmup": 0, "duration": 0, "iterations": 5}
    folder = tmp_path / "scenes" / "images"
    summary = deploy(checkpoint_path(), folder, tmp_path / "out", int8=True, bf16=True, backend="openvino", **quick)
    assert [engine.file for engine in summary.engines] == ["fcn8s.fp32.onnx", "fcn8s.bf16.onnx", "fcn8s.int8.onnx"]
    for engine in summary.engines:
        sidecar = json.loads((tmp_path / "out" / f"{engine.file}.json").read_text())
        assert (sidecar["backend"], sidecar["gate"]["passed"]) == ("openvino", True)
        assert sidecar["target"]["cpu"] == ("vnni" if "int8" in engine.file else "generic")
