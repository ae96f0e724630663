"""A real checkpoint on real images, through the single commands; the figures of all frames are in docs/results.md."""

import json

import pytest

from fcn_deploy.cli.app import run

NORMALIZATION = ("--mean", "122.67892,116.66877,104.00699", "--std", "1,1,1", "--scale", "1", "--color", "rgb")


@pytest.fixture
def call(capsys):
    def call(*arguments):
        assert run([str(argument) for argument in (*arguments, "--json")]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.slow
def test_int8_agrees_with_pytorch_on_unseen_frames(camvid, call, tmp_path):
    weights, frames = camvid / "fcn8s_camvid.pth", camvid / "camvid"
    model, ranges, engine = tmp_path / "net.onnx", tmp_path / "ranges.json", tmp_path / "net.int8.onnx"
    assert call("export", "--weights", weights, *NORMALIZATION, "-o", model)["error"] <= 1e-5
    calibration = frames / "calibration" / "images"
    call("calibrate", model, "--calib-data", calibration, "--max-images", 12, "-o", ranges)
    call("build-engine", model, "--int8", "--ranges", ranges, "-o", engine)
    evaluation = ("--data", frames / "evaluation" / "images", "--max-images", 8)
    assert call("verify", model, "--weights", weights, *evaluation)["error"] <= 1e-5
    report = call("verify", engine, "--weights", weights, *evaluation)
    assert report["images"] == 8
    assert report["agreement"] >= 0.98
