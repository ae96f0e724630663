"""Trained nets of the kinds that INT8 finds hard keep what they have learnt, in ONNX Runtime and in OpenVINO."""

from pathlib import Path

import pytest

from fcn_deploy.demo import CALIBRATION_SEEDS, CLASSES, EVALUATION_SEEDS, write_scenes
from fcn_deploy.engines import openvino
from fcn_deploy.errors import ArtifactError
from fcn_deploy.models.checkpoint import read_tensors
from fcn_deploy.runtime.openvino import library
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.evaluating import evaluate
from fcn_deploy.workflows.exporting import export
from tests.support import hard_nets
from tests.support.openvino import needs_openvino

WEIGHTS = Path(hard_nets.__file__).with_name("weights")
NETS = ("FastScnn", "MobileDeepLab", "EspNet", "UNet")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "calibration", CALIBRATION_SEEDS[:12])
    write_scenes(folder / "evaluation", EVALUATION_SEEDS[:12])
    return folder


def net(name):
    return export(WEIGHTS / f"{name}.safetensors", model=f"tests.support.hard_nets:{name}")


def judged(engine, reference, scenes):
    folder = scenes / "evaluation"
    return evaluate(engine, folder / "images", folder / "labels", reference=reference)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in NETS])
@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_int8_keeps_the_labels_and_the_accuracy(name, backend, scenes):
    model = net(name)
    fp32 = build_engine(model)
    ranges = calibrate(model, scenes / "calibration" / "images")
    int8 = build_engine(model, precision="int8", ranges=ranges, backend=backend)
    assert list(int8.sidecar.precision.layers.values()).count("int8") > 10
    found = judged(int8, fp32, scenes)
    assert found.reference.accuracy.miou > 60
    assert found.reference.parity.agreement > 0.985
    assert found.reference.drop.points < 0.6


@pytest.mark.slow
@needs_openvino
def test_a_rule_by_which_openvino_computes_something_else_is_found(scenes, monkeypatch):
    """Version 2026.4.1 merges a bias with the quantisation after it, and gives all channels that of the first."""
    if not library.version().startswith("2026.4.1"):
        pytest.skip(f"it is known of 2026.4.1, and this is {library.version()}")
    model = net("MobileDeepLab")
    ranges = calibrate(model, scenes / "calibration" / "images")
    monkeypatch.setattr(openvino, "quantized_alone", lambda data: set())
    with pytest.raises(ArtifactError, match="does not compute what this engine's graph says"):
        build_engine(model, precision="int8", ranges=ranges, backend="openvino")
    monkeypatch.setattr(openvino, "check_kernels", lambda *arguments, **options: None)
    wrong = build_engine(model, precision="int8", ranges=ranges, backend="openvino")
    assert judged(wrong, build_engine(model), scenes).reference.parity.agreement < 0.97


def test_the_weights_are_small_and_know_what_they_are():
    assert {path.stem for path in WEIGHTS.iterdir()} == set(NETS)
    for name in NETS:
        path = WEIGHTS / f"{name}.safetensors"
        assert path.stat().st_size < 1.5e6
        _, spec = read_tensors(path)
        assert (spec.model, spec.classes) == (f"tests.support.hard_nets:{name}", CLASSES)
