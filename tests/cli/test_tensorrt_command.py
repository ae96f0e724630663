"""`build-engine` for TensorRT engines: files, words, exit codes, and what it imports."""

import json
import subprocess
import sys

import pytest

from fcn_deploy.files import sha256_file
from fcn_deploy.installation import install_command
from fcn_deploy.runtime.tensorrt.flavor import Flavor

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is for Linux and Windows on x86-64")

SMALL = ("--min-shape", "32x32", "--opt-shape", "64x64", "--max-shape", "2x96x96")


def test_auto_takes_rtx_where_there_is_no_gpu_and_says_so(call, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fcn_deploy.workflows.backends.find_gpus", lambda: pytest.fail("asked although tensorrt is not installed")
    )
    engine = tmp_path / "net.engine"
    said = call("build-engine", exported("fcn8s"), "--fp16", *SMALL, "-o", engine)
    assert "backend: tensorrt-rtx, because net.engine ends in .engine and tensorrt cannot build here" in said.err
    assert "FP16 was not audited" in said.err
    assert "profile: 1x32x32 to 2x96x96, tuned for 1x64x64\n" in said.err
    assert "of 21 layers 0 in INT8, 21 in FP16, 0 in FP32" in said.out
    sidecar = json.loads(engine.with_name("net.engine.json").read_text())
    assert (sidecar["backend"], sidecar["engine"]["sha256"]) == ("tensorrt-rtx", sha256_file(engine))
    assert sidecar["profiles"] == [{"min": [1, 32, 32], "opt": [1, 64, 64], "max": [2, 96, 96]}]


def test_int8_with_its_twin_calibrates_once(call, exported, photo_folder, tmp_path):
    engine, log = tmp_path / "net.int8.plan", tmp_path / "build.log"
    said = call(
        *("build-engine", exported("fcn8s"), "--int8", "--calib-data", photo_folder, "--max-images", 2, "--twin"),
        *(*SMALL, "--opt-shape", "96x128", "--min-shape", "96x96", "--max-shape", "96x160"),
        *("--base", "fp32", "--workspace", 512, "--compute-capability", "8.6", "--compute-capability", "8.9"),
        *("--log", log, "-o", engine, "--json"),
    )
    report = json.loads(said.out)
    twin = report.pop("twin")
    assert report == json.loads(engine.with_name("net.int8.plan.json").read_text())
    assert twin == json.loads((tmp_path / "net.fp16.plan.json").read_text())
    assert twin["engine"]["file"] == "net.fp16.plan"
    assert (report["precision"]["base"], twin["precision"]["requested"]) == ("fp32", "fp16")
    assert twin["precision"]["audited"] is True
    assert report["source"] == twin["source"]
    assert report["target"]["gpu"] == ["8.6", "8.9"]
    assert len(report["profiles"]) == 2
    assert said.err.count("calibrating") == 1
    assert log.stat().st_size > 1000
    assert (tmp_path / "build.fp16.log").stat().st_size > 1000


def test_bf16_fp8_and_tf32_are_built_and_said(call, exported, ranges_file, tmp_path):
    engine, line = tmp_path / "net.engine", ("build-engine", exported("fcn8s"), *SMALL, "-o", tmp_path / "net.engine")
    said = call(*line, "--bf16")
    # The graph asks for FP32 in transposed convolutions; TensorRT-RTX merges the casts around them, and says so.
    assert "of 21 layers 0 in INT8, 0 in FP16, 21 in BF16, 0 in FP32" in said.out
    assert "The plan is not all in the precision asked for, which is decided at load: upscore2 in bf16" in said.err
    fp8 = ("--fp8", "--ranges", ranges_file("fcn8s"), "--compute-capability", "8.9")
    said = call(*line, *fp8)
    assert "of 21 layers 0 in INT8, 14 in FP8, 7 in FP16, 0 in FP32" in said.out
    precision = json.loads(engine.with_name("net.engine.json").read_text())["precision"]
    assert (precision["requested"], precision["method"], precision["achieved"]) == ("fp8", "minmax", "fp8")
    report = json.loads(call(*line, *fp8, "--base", "fp32", "--tf32", "--calib-method", "mse", "--json").out)
    precision = report["precision"]
    assert (precision["base"], precision["tf32"], precision["method"]) == ("fp32", True, "mse")
    call(*line, "--tf32")
    assert json.loads(engine.with_name("net.engine.json").read_text())["precision"]["tf32"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--timing-cache", "t"), "tensorrt-rtx cannot do what is asked for; got --timing-cache"),
        (("--version-compatible", "--hardware-compatibility"), "--hardware-compatibility, --version-compatible"),
        (("--compute-capability", "9.0"), "expected 7.5, 8.0"),
        (("--compute-capability", "8.6", "--compute-capability", "8.6"), "twice"),
        (("--builder-optimization-level", "6"), "0<=x<=5"),
        (("--min-shape", "64x64", "--opt-shape", "32x32", "--max-shape", "96x96"), "min <= opt <= max"),
        (("--target-cpu", "vnni"), "target CPU"),
        (("--base", "fp32"), "--base fp32 with --fp16"),
        (("--tf32",), "--tf32 with --fp16"),
        (("--calib-size", "32x32"), "calibration is for INT8 and FP8"),
    ],
)
def test_options_it_cannot_do_are_usage_errors_and_no_files(call, exported, tmp_path, arguments, message):
    call_line = ("build-engine", exported("fcn8s"), "--fp16", "--backend", "tensorrt-rtx", *arguments)
    assert message in call(*call_line, "-o", tmp_path / "net.engine", code=2).err
    assert not list(tmp_path.iterdir())


def test_a_twin_does_not_replace_what_is_read(call, exported, ranges_file, tmp_path):
    model = tmp_path / "net.fp16.engine"
    model.write_bytes(exported("fcn8s").read_bytes())
    arguments = ("--int8", "--ranges", ranges_file("fcn8s"), "--twin", "-o", tmp_path / "net.engine")
    assert "would replace an input" in call("build-engine", model, *arguments, code=2).err


def test_a_backend_that_is_not_there_is_exit_7_before_any_work(call, exported, photo_folder, tmp_path, monkeypatch):
    line = ("build-engine", exported("fcn8s"), "--int8", "--calib-data", photo_folder, "-o", tmp_path / "net.engine")
    said = call(*line, "--backend", "tensorrt", code=7)
    assert f"tensorrt is not installed; fix: {install_command('tensorrt')}" in said.err
    monkeypatch.setattr(Flavor, "installed", property(lambda self: False))
    said = call(*line, code=7)
    assert f"{install_command('tensorrt-rtx')} or {install_command('tensorrt')}" in said.err
    assert "calibrating" not in said.err
    assert not list(tmp_path.iterdir())


def _imported(*arguments):
    script = (
        "import sys\nfrom fcn_deploy.cli.app import run\nassert run(sys.argv[1:]) == 0\n"
        "print([name for name in ('torch', 'tensorrt_rtx', 'tensorrt', 'cuda') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


def test_no_build_imports_torch_and_only_that_of_a_plan_an_nvidia_library(exported, ranges_file, tmp_path):
    model, int8 = exported("fcn8s"), ("--int8", "--ranges", ranges_file("fcn8s"))
    # `cuda` is the driver's, which is asked whether the engine can be inspected here.
    assert _imported("build-engine", model, *int8, *SMALL, "-o", tmp_path / "net.engine") == "['tensorrt_rtx', 'cuda']"
    assert _imported("build-engine", model, *int8, "-o", tmp_path / "net.onnx") == "[]"
    assert _imported("--help") == "[]"


@pytest.mark.parametrize("option", ["--log", "--timing-cache"])
def test_what_is_written_besides_is_no_input(call, exported, tmp_path, option):
    model = tmp_path / "net.onnx"
    model.write_bytes(exported("fcn8s").read_bytes())
    said = call("build-engine", model, "--fp16", option, model, "-o", tmp_path / "net.engine", code=2)
    assert "would replace an input" in said.err
    assert model.read_bytes() == exported("fcn8s").read_bytes()
