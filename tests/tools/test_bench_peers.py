"""The comparison with other runtimes, tried on what is installed here."""

import json
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bench_peers
import peer_worker
from fcn_deploy.demo import write_scenes


@pytest.fixture(scope="module")
def run(exported, checkpoint_file, photo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")

    def run(*arguments):
        output = folder / "peers.json"
        given = ["--model", exported("fcn8s"), "--weights", checkpoint_file("fcn8s")]
        given += ["--calib-data", photo_folder, "--threads", "1"]
        for option, value in (("--images", photo_folder), ("--shape", "2x48x64")):
            given += [] if option in arguments else [option, value]
        given += ["--rounds", "5", "--duration", "0", "-o", output, *arguments]
        result = CliRunner().invoke(bench_peers.main, [str(each) for each in given], catch_exceptions=False)
        return result, output

    return run


def test_contestants_are_timed_and_their_labels_compared(run, tmp_path):
    plot = tmp_path / "peers.svg"
    names = ("onnxruntime", "ours-fp32", "ours-int8", "torch-eager")
    result, output = run(*(word for name in names for word in ("--contestant", name)), "--plot", plot)
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text())
    (measured,) = report["runs"]
    assert (measured["shape"], measured["threads"], measured["rounds"]) == ("2x48x64", 1, 5)
    assert measured["macs"] > 0
    rows = measured["contestants"]
    assert set(rows) == set(names)
    for row in rows.values():
        assert row["refused"] is None
        assert 0 < row["net"]["median_ms"] <= row["whole"]["median_ms"]
        assert row["whole"]["ratio_low"] <= row["whole"]["ratio"] <= row["whole"]["ratio_high"]
    assert rows["onnxruntime"]["whole"]["ratio"] == 1
    assert rows["ours-fp32"]["alike"] > 0.999
    assert rows["torch-eager"]["alike"] > 0.999
    assert rows["ours-int8"]["alike"] > 0.9
    assert report["sgemm_gflops"]["1"] > 0
    assert "| ours-int8 |" in result.output
    assert plot.read_text().startswith("<?xml")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, range(3), (48, 64))
    for path in (folder / "labels").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) % 5).save(path)  # the net has five classes
    return folder


def test_labels_are_judged_over_all_images_beside_the_truth(run, scenes):
    judged = ("--images", scenes / "images", "--fidelity", "--labels", scenes / "labels", "--shape", "48x64")
    names = ("onnxruntime", "onnxruntime-static", "ours-int8", "ours-tensorrt-simulated")
    result, output = run(*(word for name in names for word in ("--contestant", name)), *judged)
    assert result.exit_code == 0, result.output
    rows = json.loads(output.read_text())["runs"][-1]["contestants"]
    found = {name: row["fidelity"] for name, row in rows.items()}
    assert {row["images"] for row in found.values()} == {3}
    assert found["onnxruntime"]["agreement"] == [1, 1, 1]
    assert found["onnxruntime"]["drop"] == [0, 0, 0]
    for name in names[1:]:
        agreement, low, high = found[name]["agreement"]
        assert low <= agreement <= high < 1
        assert found[name]["miou"] + found[name]["drop"][0] == pytest.approx(found["onnxruntime"]["miou"])
    assert "| ours-int8 |" in result.output.split("mIoU")[1]
    # What is simulated has labels, and no time.
    assert {name for name, row in rows.items() if "whole" in row} == set(names[:3])
    assert "| ours-tensorrt-simulated | simulated |" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fidelity",), "--fidelity and --labels go together"),
        (("--fidelity", "--labels", "{}/labels", "--images", "{}/images", "--shape", "32x32"), "--shape 1x48x64"),
    ],
)
def test_fidelity_needs_the_truth_of_whole_images(run, scenes, arguments, message):
    result, _ = run("--contestant", "onnxruntime", *(word.format(scenes) for word in arguments))
    assert result.exit_code == 2
    assert message in result.output


def test_fidelity_needs_images_of_one_size(run, scenes, tmp_path):
    for kind, mode in (("images", "RGB"), ("labels", "L")):
        shutil.copytree(scenes / kind, tmp_path / kind)
        Image.new(mode, (48, 64)).save(tmp_path / kind / "scene_99999.png")
    judged = ("--images", tmp_path / "images", "--fidelity", "--labels", tmp_path / "labels")
    # Both sizes are asked for, and neither is that of all images.
    result, _ = run("--contestant", "onnxruntime", *judged, "--shape", "48x64", "--shape", "64x48")
    assert result.exit_code == 2
    assert "--fidelity needs images of one size" in result.output


def test_what_makes_a_net_goes_with_its_model():
    arguments = ["--model-from", "tests.support.custom_nets:UNet", "-o", "x.json"]
    result = CliRunner().invoke(bench_peers.main, arguments)
    assert result.exit_code == 2
    assert "goes with it" in result.output


def test_what_a_peer_refuses_is_recorded_in_its_words_and_the_rest_goes_on(run, tmp_path, monkeypatch):
    (tmp_path / "absent").mkdir()
    missing = "No module named 'openvino'"
    (tmp_path / "absent" / "openvino.py").write_text(f"raise ModuleNotFoundError({missing!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "absent"))
    # The Python of the peers has not all of them.
    names = ("onnxruntime", "mnn-fp32", "openvino-fp32", "modelopt-onnxruntime")
    result, output = run(*(word for name in names for word in ("--contestant", name)), "--peers", sys.executable)
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text())
    rows = report["runs"][0]["contestants"]
    assert rows["onnxruntime"]["refused"] is None
    assert missing in rows["openvino-fp32"]["refused"]
    assert rows["mnn-fp32"]["refused"]
    assert "mnnconvert" in report["refused"]["mnn-fp32"]
    assert "modelopt" in report["refused"]["modelopt-onnxruntime"]
    assert rows["modelopt-onnxruntime"]["refused"]


def test_a_net_of_your_own_comes_with_its_images(run):
    result = CliRunner().invoke(bench_peers.main, ["--model", "net.onnx", "-o", "x.json"])
    assert result.exit_code == 2
    assert "go together" in result.output


def test_without_what_others_are_compared_with_there_is_nothing_to_say(tmp_path):
    result = CliRunner().invoke(bench_peers.main, ["--contestant", "ours-fp32", "-o", str(tmp_path / "x.json")])
    assert result.exit_code == 2
    assert "everything is compared with onnxruntime" in result.output


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_images_of_peers_are_normalised_as_the_net_wants_them(tmp_path, color):
    facts = {"scale": [2.0, 3.0, 4.0], "offset": [0.5, 1.5, 2.5], "color": color}
    (tmp_path / "normalization.json").write_text(json.dumps(facts))
    seen = []
    way = peer_worker.WholeWay(lambda planes: seen.append(planes.copy()) or planes, tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    labels, milliseconds = way(image)
    channels = image if color == "RGB" else image[..., ::-1]
    expected = channels.astype(np.float32) * np.float32([2, 3, 4]) + np.float32([0.5, 1.5, 2.5])
    np.testing.assert_allclose(seen[0], expected.transpose(0, 3, 1, 2), rtol=1e-6)
    np.testing.assert_array_equal(labels, expected.argmax(-1))
    assert milliseconds >= 0
