"""Every command with engines for OpenVINO: files, words and exit codes."""

import json
import sys

import pytest

from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.installation import install_command
from fcn_deploy.runtime.openvino import library
from tests.support.openvino import needs_bf16, needs_openvino


@pytest.fixture
def built(call, exported, ranges_file, tmp_path):
    def build(*arguments, code=0):
        engine = tmp_path / "net.onnx"
        ranges = ("--ranges", ranges_file("fcn8s")) if "--int8" in arguments else ()
        said = call(
            "build-engine", exported("fcn8s"), "--backend", "openvino", *ranges, *arguments, "-o", engine, code=code
        )
        return engine, said

    return build


@needs_openvino
@pytest.mark.parametrize(
    ("arguments", "layers"),
    [
        (("--fp32",), "of 21 layers 0 in INT8, 0 in FP16, 21 in FP32"),
        (("--int8",), "of 21 layers 14 in INT8, 0 in FP16, 7 in FP32"),
        pytest.param(("--bf16",), "of 21 layers 0 in INT8, 0 in FP16, 18 in BF16, 3 in FP32", marks=needs_bf16),
        pytest.param(
            ("--int8", "--base", "bf16"), "of 21 layers 14 in INT8, 0 in FP16, 4 in BF16, 3 in FP32", marks=needs_bf16
        ),
    ],
)
def test_it_is_built_and_says_what_layers_run_in(built, call, photo_folder, tmp_path, arguments, layers):
    engine, said = built(*arguments)
    assert layers in said.out
    sidecar = json.loads(sidecar_path(engine).read_text())
    assert (sidecar["backend"], sidecar["precision"]["requested"]) == ("openvino", arguments[0].strip("-"))
    facts = json.loads(call("inspect", engine, "--json").out)
    assert facts["sidecar"] == sidecar
    assert {layer["name"]: layer["precision"] for layer in facts["layers"]} == sidecar["precision"]["achieved_layers"]
    call("predict", engine, photo_folder, "-o", tmp_path / "out", "--threads", 1, "--tile", "32x32")
    assert list((tmp_path / "out").iterdir())


@needs_openvino
def test_it_is_verified_measured_and_inspected(built, call, exported, photo_folder, tmp_path):
    engine, _ = built("--fp32", "--io", "tensor")
    said = call("verify", engine, "--reference", exported("fcn8s"), "--data", photo_folder, "--json")
    found = json.loads(said.out)
    assert (found["precision"], found["gate"]["passed"]) == ("fp32", True)
    quick = ("--shape", "33x47", "--warmup", 0, "--duration", 0, "--iterations", 2, "--threads", 1)
    names = [
        row["name"] for row in json.loads(call("benchmark", engine, exported("fcn8s"), *quick, "--json").out)["engines"]
    ]
    assert names == ["net.onnx", "fcn8s.onnx"]
    facts = json.loads(call("inspect", engine, "--json").out)
    assert (facts["kind"], facts["sidecar"]["backend"]) == ("engine", "openvino")
    assert "openvino" in call("inspect", engine).out


@needs_openvino
def test_devices_are_named_and_must_be_there(built, call, photo_folder, tmp_path):
    engine, _ = built("--fp32")
    line = ("predict", engine, photo_folder, "-o", tmp_path / "out")
    call(*line, "--device-name", "CPU")
    said = call(*line, "--device-name", "GPU.7", code=7)
    assert "OpenVINO finds no GPU.7 on this machine" in said.err
    assert "leave out --device-name" in said.err
    assert "--provider is for engines of ONNX Runtime" in call(*line, "--provider", "cpu", code=2).err


@needs_openvino
def test_a_budget_and_a_precision_map_choose_its_int8_layers(built, call, photo_folder, tmp_path):
    engine, _ = built("--int8", "--accuracy-budget", "agreement>=90%", "--data", photo_folder)
    sidecar = json.loads(sidecar_path(engine).read_text())
    assert sidecar["precision"]["budget"]["criterion"] == "agreement>=90%"
    chosen = sidecar["precision"]["layers"]
    kept = tmp_path / "map.json"
    kept.write_text(json.dumps({"layers": {**chosen, "conv4_2": "bf16"}}))
    engine, _ = built("--int8", "--precision-map", kept)
    achieved = json.loads(sidecar_path(engine).read_text())["precision"]["achieved_layers"]
    assert achieved == {**chosen, "conv4_2": "fp32"}


@needs_openvino
def test_sensitivity_times_its_layers_in_openvino(call, exported, ranges_file, photo_folder):
    options = ("--max-images", 1, "--backend", "openvino", "--json")
    said = call("sensitivity", exported("fcn8s"), "--ranges", ranges_file("fcn8s"), "--data", photo_folder, *options)
    document = json.loads(said.out)
    assert document["target"] == "openvino"
    assert all(layer["float_ms"] > 0 and layer["int8_ms"] > 0 for layer in document["layers"])


def test_without_the_library_it_is_exit_7_before_any_work(call, exported, photo_folder, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    find = library.importlib.util.find_spec
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    build = ("build-engine", exported("fcn8s"), "--int8", "--calib-data", photo_folder, "-o", tmp_path / "net.onnx")
    measure = ("sensitivity", exported("fcn8s"), "--ranges", tmp_path / "absent.json", "--data", photo_folder)
    for line in (build, measure):
        said = call(*line, "--backend", "openvino", code=7)
        assert f"OpenVINO is not installed; fix: {install_command('openvino')}" in said.err
        assert "calibrating" not in said.err
