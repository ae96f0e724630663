"""`fcn-deploy sensitivity`, and `build-engine` with what is decided on images."""

import json

import pytest
from PIL import Image

from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.quantization.methods import METHODS

MAGIC = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}


@pytest.fixture
def arguments(exported, ranges_file, photo_folder):
    return exported("fcn8s"), "--ranges", ranges_file("fcn8s"), "--data", photo_folder


def test_it_prints_a_table_and_writes_json_and_a_plot(call, arguments, tmp_path):
    said = call("sensitivity", *arguments, "--max-images", 2, "-o", tmp_path / "s.json", "--plot", tmp_path / "s.svg")
    assert "conv5_3" in said.out
    assert "INT8 (mse) for onnxruntime, 2 images" in said.out
    document = json.loads((tmp_path / "s.json").read_text())
    assert [layer["name"] for layer in document["layers"]][:2] == ["conv1_1", "conv1_2"]
    assert (tmp_path / "s.svg").read_bytes().startswith(MAGIC[".svg"])


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_tensorrt_graphs_are_simulated(call, arguments, tmp_path, suffix):
    options = ("--max-images", 1, "--backend", "tensorrt", "--base", "fp32", "--calib-method", "minmax", "--json")
    document = json.loads(call("sensitivity", *arguments, *options, "--plot", tmp_path / f"s{suffix}").out)
    assert (document["target"], document["method"], document["images"]) == ("tensorrt", "minmax", 1)
    assert all(layer["float_ms"] is None for layer in document["layers"])
    assert (tmp_path / f"s{suffix}").read_bytes().startswith(MAGIC[suffix])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--base", "fp32"), "a base precision is TensorRT's"),
        (("--backend", "tensorrt", "--target-cpu", "vnni"), "a target CPU is for an engine that runs on one"),
        (("--plot", "x.txt"), "suffix does not fit"),
        (("--plot", "same.svg", "-o", "same.svg"), "would replace an input"),
    ],
)
def test_options_that_do_not_go_together_are_refused(call, arguments, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in call("sensitivity", *arguments, *options, code=2).err


def test_ranges_of_another_net_are_refused(call, exported, ranges_file, photo_folder):
    said = call("sensitivity", exported("fcn16s"), "--ranges", ranges_file("fcn8s"), "--data", photo_folder, code=6)
    assert "belong to another model" in said.err


# build-engine


def built(call, tmp_path, *arguments):
    call("build-engine", *arguments, "--int8", "-o", tmp_path / "e.onnx")
    return json.loads(sidecar_path(tmp_path / "e.onnx").read_text())["precision"]


def test_auto_holds_images_out_and_records_what_it_tried(call, exported, photo_folder, tmp_path):
    options = ("--calib-data", photo_folder, "--calib-method", "auto")
    precision = built(call, tmp_path, exported("fcn8s"), *options)
    assert set(precision["tried"]) == set(METHODS)
    assert precision["method"] == next(iter(precision["tried"]))
    sidecar = json.loads(sidecar_path(tmp_path / "e.onnx").read_text())
    assert sidecar["source"]["calibration"]["count"] == 8  # of ten, every fifth was held out


def test_a_budget_is_kept_and_recorded_and_its_map_gives_the_same_engine(call, arguments, tmp_path):
    precision = built(call, tmp_path, *arguments, "--accuracy-budget", "agreement>=100%")
    assert precision["budget"] == {"criterion": "agreement>=100%", "measured": 1.0, "bound": 1.0, "images": 10}
    assert "int8" not in precision["layers"].values()
    loose = built(call, tmp_path, *arguments, "--accuracy-budget", "agreement >= 50 %")
    assert list(loose["layers"].values()).count("int8") == 14
    engine = (tmp_path / "e.onnx").read_bytes()
    sidecar_path(tmp_path / "e.onnx").rename(tmp_path / "map.json")
    again = built(call, tmp_path, *arguments[:3], "--precision-map", tmp_path / "map.json")
    assert again["layers"] == loose["layers"]
    assert (tmp_path / "e.onnx").read_bytes() == engine


def test_a_simulation_takes_a_budget_too(call, arguments, tmp_path):
    options = ("--backend", "simulation", "--accuracy-budget", "agreement>=50%")
    assert built(call, tmp_path, *arguments, *options)["budget"]["images"] == 10


def test_a_budget_that_float_cannot_keep_is_exit_3(call, exported, ranges_file, photos, tmp_path):
    (tmp_path / "one").mkdir()
    Image.fromarray(photos[0]).save(tmp_path / "one" / "a.png")
    options = ("--ranges", ranges_file("fcn8s"), "--data", tmp_path / "one", "--accuracy-budget", "agreement>=90%")
    said = call("build-engine", exported("fcn8s"), "--int8", *options, "-o", tmp_path / "e.onnx", code=3)
    assert "not even without INT8" in said.err
    assert not (tmp_path / "e.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--int8", "--ranges", "R", "--calib-method", "auto"), "no images to decide on"),
        (("--int8", "--ranges", "R", "--data", "D"), "nothing is decided on images"),
        (("--int8", "--calib-data", "D", "--accuracy-budget", "miou_drop<=1"), "needs ground truth"),
        (("--int8", "--calib-data", "D", "--accuracy-budget", "error<=1"), "a budget limits what happens to labels"),
        (
            ("--int8", "--calib-data", "D", "--accuracy-budget", "agreement>=0.9", "--precision-map", "M"),
            "stated twice",
        ),
        (("--int8", "--calib-data", "D", "--accuracy-budget", "agreement<=0.9"), "better the larger"),
        (("--fp32", "--precision-map", "M"), "are for INT8"),
    ],
)
def test_what_cannot_be_decided_is_refused(call, exported, ranges_file, photo_folder, tmp_path, options, message):
    real = {"R": ranges_file("fcn8s"), "D": photo_folder}
    options = [real.get(option, option) for option in options]
    assert message in call("build-engine", exported("fcn8s"), *options, "-o", tmp_path / "e.onnx", code=2).err
