"""Models that hold Q/DQ, on the command line."""

import json
from dataclasses import replace

import pytest

from fcn_deploy.artifacts.sidecar import load_sidecar
from tests.support import quantized_nets


def test_it_is_built_as_it_is_with_what_became_of_it_said(call, quantized, tmp_path):
    engine = tmp_path / "net.int8.onnx"
    said = call("build-engine", quantized("defaults"), "--int8", "-o", engine)
    assert "of 21 layers 18 in INT8, 0 in FP16, 3 in FP32" in said.out
    assert "weights of 18 layers use all 8 bits" in said.err
    assert "warning: ONNX Runtime has no integer kernel for upscore2, upscore2_pool4, upscore8" in said.err
    shown = call("inspect", engine).out
    assert "method: given" in shown
    assert "of these run in fp32: upscore2 upscore2_pool4 upscore8" in shown


def test_its_engine_is_verified_and_evaluated_as_any_other(call, quantized, exported, photo_folder, tmp_path):
    engine, labels = tmp_path / "net.int8.onnx", tmp_path / "labels"
    call("build-engine", quantized("tensorrt"), "--int8", "-o", engine)
    images = ("--data", photo_folder, "--json")
    verified = json.loads(call("verify", engine, "--reference", exported("fcn8s"), *images).out)
    assert (verified["precision"], verified["failures"]) == ("int8", [])
    call("predict", exported("fcn8s"), photo_folder, "--save", "labels", "-o", labels)
    for path in labels.iterdir():
        path.rename(path.with_name(path.name.replace(".labels", "")))
    evaluated = call("evaluate", engine, "--labels", labels, *images)
    assert json.loads(evaluated.out)["pixel_accuracy"] > 95


def test_inspect_says_what_a_model_holds(call, quantized, exported):
    shown = call("inspect", quantized("tensorrt")).out
    assert "layers      21, 18 with Q/DQ for int8" in shown
    assert "QuantizeLinear: 34" in shown
    assert "with Q/DQ" not in call("inspect", exported("fcn8s")).out


def test_a_simulation_and_a_plan_are_built_of_it_too(call, quantized, exported, photo_folder, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is for Linux and Windows on x86-64")
    simulated, plan = tmp_path / "simulated.onnx", tmp_path / "net.engine"
    model = quantized("tensorrt")
    call("build-engine", model, "--int8", "--backend", "simulation", "--base", "fp32", "-o", simulated)
    shapes = ("--min-shape", "32x32", "--opt-shape", "64x64", "--max-shape", "96x96")
    call("build-engine", model, "--int8", "--backend", "tensorrt-rtx", "--base", "fp32", *shapes, "-o", plan)
    asked, built = (load_sidecar(path).precision for path in (simulated, plan))
    assert replace(built, achieved="unknown", achieved_layers=None) == asked
    assert (built.achieved, built.achieved_layers) == ("int8", built.layers)
    assert asked.method == "given"
    verified = call("verify", simulated, "--reference", exported("fcn8s"), "--data", photo_folder, "--json")
    assert json.loads(verified.out)["failures"] == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--calib-data", "DIR"), "--calib-data"),
        (("--ranges", "FILE"), "--ranges"),
        (("--calib-method", "percentile"), "--calib-method"),
        (
            ("--calib-data", "DIR", "--max-images", 2, "--calib-size", "32x32"),
            "--calib-data, --calib-size, --max-images",
        ),
    ],
)
def test_what_would_calibrate_it_is_refused(call, quantized, photo_folder, ranges_file, tmp_path, options, named):
    files = {"DIR": photo_folder, "FILE": ranges_file("fcn8s")}
    options = [files.get(option, option) for option in options]
    said = call("build-engine", quantized("reduced"), "--int8", *options, "-o", tmp_path / "e.onnx", code=2)
    assert f"the model holds Q/DQ and brings its own scales; got {named}; fix: leave it out" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", [(), ("--fp32",)])
def test_another_precision_is_refused(call, quantized, tmp_path, precision):
    said = call("build-engine", quantized("reduced"), *precision, "-o", tmp_path / "e.onnx", code=2)
    assert "the graph is INT8 already: it holds Q/DQ; got --fp32; fix: build it with --int8" in said.err


def test_fp16_and_its_twin_are_refused(call, quantized, tmp_path):
    arguments = ("build-engine", quantized("tensorrt"), "-o", tmp_path / "e.onnx", "--backend", "simulation")
    assert "the graph is INT8 already" in call(*arguments, "--fp16", code=2).err
    assert "cannot be built in FP16; got --twin" in call(*arguments, "--int8", "--base", "fp32", "--twin", code=2).err


def test_a_float_model_still_needs_ranges(call, exported, tmp_path):
    said = call("build-engine", exported("fcn8s"), "--int8", "-o", tmp_path / "e.onnx", code=2)
    assert "INT8 needs ranges; got neither" in said.err


def test_calibrating_it_is_refused(call, quantized, photo_folder, tmp_path):
    for images in (("--calib-data", photo_folder), ("--random-calibration", "--calib-size", "32x32")):
        said = call("calibrate", quantized("reduced"), *images, "-o", tmp_path / "ranges.json", code=6)
        assert "quantised already, with scales of its own" in said.err
    assert not list(tmp_path.iterdir())


def test_integer_operators_are_refused(call, quantized, tmp_path):
    said = call("build-engine", quantized("operators"), "--int8", "-o", tmp_path / "e.onnx", code=6)
    assert "quantised by integer operators" in said.err


def test_a_spec_that_a_tool_left_out_is_taken_from_the_exported_model(call, quantized, exported, tmp_path):
    bare = quantized_nets.without_spec(quantized("reduced"), tmp_path / "bare.onnx")
    arguments = ("build-engine", bare, "--int8", "-o", tmp_path / "e.onnx")
    assert "--spec-from" in call(*arguments, code=6).err
    call(*arguments, "--spec-from", exported("fcn8s"))
    sidecar = load_sidecar(tmp_path / "e.onnx")
    call("build-engine", quantized("reduced"), "--int8", "-o", tmp_path / "own.onnx")
    assert sidecar.spec == load_sidecar(tmp_path / "own.onnx").spec
    assert "fcn_deploy.spec in its metadata" in call(*arguments, "--spec-from", bare, code=6).err


def test_the_model_a_spec_comes_from_is_not_written_over(call, quantized, exported, tmp_path):
    model = tmp_path / "float.onnx"
    model.write_bytes(exported("fcn8s").read_bytes())
    said = call("build-engine", quantized("reduced"), "--int8", "--spec-from", model, "-o", model, code=2)
    assert "would replace an input" in said.err
