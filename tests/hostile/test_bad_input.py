"""What users really hand over: one clear line, the exit code of the contract, no partial file, no traceback."""

import os
import pickle
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.cli.app import run


@pytest.fixture
def fails(capsys, tmp_path):
    """Runs a command that must fail, and checks how."""

    def fails(code, *arguments, says):
        output = tmp_path / "output" / f"file.{'json' if arguments[0] == 'calibrate' else 'onnx'}"
        output.parent.mkdir(exist_ok=True)
        named = () if "-o" in arguments else ("-o", output)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert run([str(argument) for argument in (*arguments, *named)]) == code
        said = capsys.readouterr().err
        error = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(error) == 1, said
        assert says in error[0]
        assert "Traceback" not in said
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    return fails


def test_a_truncated_checkpoint(fails, checkpoint_file, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(checkpoint_file("fcn8s").read_bytes()[:5000])
    fails(6, "export", "--weights", path, says="truncated")


class _Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_pickle_that_wants_to_run_code(fails, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(pickle.dumps({"state_dict": _Payload(str(tmp_path / "owned"))}))
    fails(6, "export", "--weights", path, says="code from a checkpoint is never run")
    assert not (tmp_path / "owned").exists()


def test_an_unknown_layout(fails, tmp_path):
    import torch

    path = tmp_path / "net.pth"
    torch.save({"encoder.weight": torch.zeros(3)}, path)
    fails(6, "export", "--weights", path, says="key layout")


def test_a_wrong_number_of_class_names(fails, checkpoint_file, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("sky\nroad\n")
    fails(6, "export", "--weights", checkpoint_file("fcn8s"), "--class-names", names, says="got 2 names; expected 5")


def test_a_missing_checkpoint(fails, tmp_path):
    fails(6, "export", "--weights", tmp_path / "none.pth", says="no such file")


@pytest.mark.parametrize("content", [b"", b"\x08\x01", b"certainly not protobuf" * 50], ids=["empty", "bare", "text"])
@pytest.mark.parametrize("command", ["simplify", "calibrate", "build-engine"])
def test_a_file_that_is_no_onnx_model(fails, photo_folder, tmp_path, command, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    options = ("--calib-data", photo_folder) if command == "calibrate" else ()
    fails(6, command, path, *options, says="not an ONNX model")


def test_onnx_models_that_are_damaged_inside(fails, exported, photo_folder, tmp_path):
    import onnx

    def broken(change):
        model = onnx.load(exported("fcn8s"))
        change(model.graph)
        path = tmp_path / "broken.onnx"
        onnx.save(model, path)
        return path

    def unknown_op(graph):
        graph.node[4].op_type = "Convolve"

    def dangling_input(graph):
        next(node for node in graph.node if node.op_type == "Relu").input[0] = "nowhere"

    def short_weight(graph):
        graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-4]

    for change in (unknown_op, dangling_input, short_weight):
        path = broken(change)
        fails(6, "calibrate", path, "--calib-data", photo_folder, says="is not an ONNX model; got ")
        fails(6, "build-engine", path, says="is not an ONNX model; got ")


def test_an_engine_where_a_model_is_wanted(fails, exported, photo_folder, tmp_path):
    engine = tmp_path / "engine.onnx"
    assert run(["build-engine", str(exported("fcn8s")), "--io", "tensor", "-o", str(engine)]) == 0
    fails(6, "build-engine", engine, says="is an engine")
    fails(6, "calibrate", engine, "--calib-data", photo_folder, says="is an engine")


def test_an_output_that_is_the_input(fails, exported, photo_folder, tmp_path):
    model = tmp_path / "net.onnx"
    model.write_bytes(exported("fcn8s").read_bytes())
    fails(2, "build-engine", model, "-o", tmp_path / "." / "net.onnx", says="would replace an input")
    fails(2, "calibrate", model, "--calib-data", photo_folder, "-o", model, says="would replace an input")


def test_a_folder_with_a_text_file_called_png(fails, exported, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "scene.png").write_text("hello")
    fails(6, "calibrate", exported("fcn8s"), "--calib-data", folder, says="scene.png is not an image")


def test_an_image_that_breaks_off(fails, exported, photo_folder, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    source = (photo_folder / "photo_00.png").read_bytes()
    (folder / "a.png").write_bytes(source)
    (folder / "b.png").write_bytes(source[: len(source) // 2])
    fails(6, "calibrate", exported("fcn8s"), "--calib-data", folder, says="b.png is damaged")


def test_an_empty_and_a_missing_folder(fails, exported, tmp_path):
    (tmp_path / "empty").mkdir()
    fails(6, "calibrate", exported("fcn8s"), "--calib-data", tmp_path / "empty", says="no images")
    fails(6, "calibrate", exported("fcn8s"), "--calib-data", tmp_path / "none", says="not a folder")


def test_output_paths_that_cannot_be_written(fails, exported, photo_folder, tmp_path):
    (tmp_path / "a.onnx").mkdir()
    build = ("build-engine", exported("fcn8s"), "-o")
    fails(6, *build, tmp_path / "none" / "net.onnx", says="mkdir -p")
    fails(6, *build, tmp_path / "a.onnx", says="a folder")
    fails(
        6, "calibrate", exported("fcn8s"), "--calib-data", photo_folder, "-o", "/proc/ranges.json", says="cannot write"
    )
    file = tmp_path / "file"
    file.write_bytes(b"\x80\x02}q\x00.")
    deploy = ("deploy", "--weights", file, "--calib-data", photo_folder, "-o", file / "out")
    fails(6, *deploy, says="cannot make the folder")


def test_a_tampered_engine_and_a_lost_sidecar(fails, exported, photo_folder, tmp_path):
    engine = tmp_path / "net.onnx"
    assert run(["build-engine", str(exported("fcn8s")), "-o", str(engine)]) == 0
    verify = ("verify", engine, "--reference", exported("fcn8s"), "--data", photo_folder)
    data = engine.read_bytes()
    engine.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run([str(a) for a in verify]) == 5
    engine.write_bytes(data)
    sidecar = tmp_path / "net.onnx.json"
    text = sidecar.read_text()
    sidecar.write_text(text.replace('"format": 1', '"format": 2', 1))
    assert run([str(a) for a in verify]) == 5
    sidecar.unlink()
    assert run([str(a) for a in verify]) == 5


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "histograms": 3}'])
def test_ranges_files_that_are_none(fails, exported, tmp_path, text):
    ranges = tmp_path / "ranges.json"
    ranges.write_text(text)
    fails(6, "build-engine", exported("fcn8s"), "--int8", "--ranges", ranges, says="ranges.json")


def test_control_c_in_mid_calibration_leaves_nothing(exported, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    for index in range(400):
        image.save(folder / f"{index:03}.png", compress_level=0)
    output = tmp_path / "output" / "ranges.json"
    output.parent.mkdir()
    command = ["calibrate", str(exported("fcn8s")), "--calib-data", str(folder), "-o", str(output)]
    process = subprocess.Popen([sys.executable, "-m", "fcn_deploy", *command], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("balancing channels: ")
    assert any(re.match(r"calibrating: \d+ of 400, ", line) for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in said
    assert not list(output.parent.iterdir())
