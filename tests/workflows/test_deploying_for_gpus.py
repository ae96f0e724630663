"""`deploy` for NVIDIA's libraries: a bundle where there is no GPU, engines where there is one (a fake)."""

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

import fcn_deploy as fd
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.bundle import expected
from fcn_deploy.bundle.expected import load_expected
from fcn_deploy.bundle.folder import check_bundle
from fcn_deploy.cli.app import run
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.errors import DependencyError, GateError, InputError
from fcn_deploy.files import sha256_file
from fcn_deploy.installation import command_elsewhere
from fcn_deploy.progress import Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import find_flavor
from fcn_deploy.workflows import bundling, deploying, device
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.on_device import build_on_device
from tests.support import colour_nets, rtx
from tests.support.bundles import make_bundle
from tests.support.exports import remembering
from tests.support.fake_device import Plans, red_over_blue
from tests.support.fake_device import device as fake_device
from tests.support.fake_nvidia import World
from tests.workflows.test_finishing import finished_elsewhere

QUICK = {"warmup": 0, "duration": 0, "iterations": 8}
NET = {
    "model": "tests.support.colour_nets:RedOrBlue",
    "normalization": "zero-one",
    "int8": True,
    "backend": "tensorrt",
}


REPORT = ("report.html", "report")


def without_driver():
    raise DependencyError("no NVIDIA driver was found", got="a test")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return colour_nets.write_scenes(tmp_path_factory.mktemp("scenes") / "set", count=10)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return colour_nets.save_weights(tmp_path_factory.mktemp("weights") / "net.pth")


@pytest.fixture(scope="module")
def exported_before():
    return {}


@pytest.fixture(autouse=True)
def one_export_for_all(exported_before, monkeypatch):
    """Exports the net once: every deployment here begins with the same."""
    monkeypatch.setattr(deploying, "export", remembering(deploying.export, exported_before))


@pytest.fixture(autouse=True)
def no_driver(monkeypatch):
    """As on a machine without a driver, wherever these tests run."""
    monkeypatch.setattr(device, "find_gpus", without_driver)


@pytest.fixture
def on_gpu(monkeypatch):
    """A machine with a GPU and the library."""
    monkeypatch.setattr(device, "find_gpus", find_gpus)
    plans = Plans()
    plans.seconds = {"fp16": 0.004, "int8": 0.001}
    with fake_device(World(), plans):
        yield plans


@pytest.fixture(scope="module")
def made(scenes, weights, tmp_path_factory):
    """A bundle with ground truth, made on a machine without a GPU."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(device, "find_gpus", without_driver)
        output = tmp_path_factory.mktemp("made") / "out"
        images, labels = scenes / "images", scenes / "labels"
        summary = deploy(weights, images, output, data=images, labels=labels, gate="int8:agreement>=90%", **NET)
    return output, summary


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_without_a_gpu_the_folder_holds_a_bundle_and_no_engine(made):
    output, summary = made
    assert names(output) == {"RedOrBlue.onnx", "RedOrBlue.ranges.json", "bundle", "summary.json", *REPORT}
    checked = check_bundle(output / "bundle")
    assert [*checked.manifest.graphs] == ["fp16", "int8"]
    assert checked.manifest.backend == "tensorrt"
    assert checked.manifest.source.onnx_sha256 == sha256_file(output / "RedOrBlue.onnx")
    assert sha256_file(output / "bundle" / "ranges.json") == checked.manifest.source.ranges_sha256
    assert summary.ship.engine is None
    assert "fcn-deploy finish tells, on the device" in summary.ship.reason
    text = (output / "report.html").read_text()
    assert "Not decided yet" in text
    assert "INT8, simulated" in text
    assert summary.gallery.engine == "bundle/int8.onnx"


def test_what_int8_costs_is_known_before_there_is_a_gpu(made):
    output, summary = made
    written = json.loads((output / "summary.json").read_text())
    assert written["requires"] == ["simulates"]
    assert Summary.from_json(written).engines == Summary.from_json(json.loads(json.dumps(summary.to_json()))).engines
    assert [engine["file"] for engine in written["engines"]] == ["bundle/fp16.onnx", "bundle/int8.onnx"]
    for engine in written["engines"]:
        assert engine["simulates"] == "tensorrt"
        assert engine["bytes"] == (output / engine["file"]).stat().st_size
        assert engine["sha256"] == sha256_file(output / engine["file"])
        assert engine["parity"]["agreement"] > 0.99
        assert engine["gate"]["passed"] is True
        assert engine["miou"] > 90
        assert (engine["median_ms"], engine["vs_fp32"], engine["percentiles_ms"]) == (None, None, {})
    assert written["pytorch"]["median_ms"] is None
    assert "rounds" not in written


def test_the_bundle_has_the_gates_the_simulations_and_what_pytorch_gives(made, scenes):
    output, summary = made
    checked = check_bundle(output / "bundle")
    manifest = checked.manifest
    assert {name: graph.criteria for name, graph in manifest.graphs.items()} == {
        "fp16": (),
        "int8": ("agreement>=90%",),
    }
    simulated = [graph.simulated.parity.agreement for graph in manifest.graphs.values()]
    assert simulated == [engine.parity.agreement for engine in summary.engines]
    assert manifest.graphs["int8"].precision.layers["head"] in ("int8", "fp16")
    examples = load_expected(checked.read("expected.npz"), "image", manifest.images)
    assert manifest.images == 10
    for index, example in enumerate(examples):
        np.testing.assert_array_equal(example.image, np.asarray(Image.open(scenes / "images" / f"{index}.png")))
        np.testing.assert_array_equal(example.truth, np.asarray(Image.open(scenes / "labels" / f"{index}.png")))
        assert (example.result == red_over_blue(example.image)).mean() > 0.99
    assert str(output) not in (output / "bundle" / "bundle.json").read_text()


def test_a_bundle_has_ground_truth_that_counts_if_there_is_any(scenes, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(expected, "MOST_IMAGES", 2)  # the first and the sixth of ten
    images, labels = scenes / "images", tmp_path / "labels"
    shutil.copytree(scenes / "labels", labels)
    for index in (0, 5):
        Image.fromarray(np.full((24, 36), 255, np.uint8)).save(labels / f"{index}.png")
    deploy(weights, images, tmp_path / "out", data=images, labels=labels, ignore_index=255, **{**NET, "int8": False})
    found = check_bundle(tmp_path / "out" / "bundle")
    read = load_expected(found.read("expected.npz"), "image", 2)
    assert found.manifest.ignore_index == 255
    assert all((example.truth != 255).any() for example in read)


def test_the_profile_is_that_of_the_images_unless_it_is_stated(made):
    profiles = check_bundle(made[0] / "bundle").manifest.profiles
    assert [ImageProfile.from_json(profile) for profile in profiles] == [ImageProfile(*[ImageShape(1, 24, 36)] * 3)]


def test_the_device_finishes_the_bundle_without_torch_and_onnx(made, tmp_path):
    shutil.copytree(made[0] / "bundle", tmp_path / "bundle")
    quick = ("--warmup", 0, "--duration", 0, "--iterations", 8, "--json")
    done = finished_elsewhere(tmp_path / "bundle", *quick)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ship"]["engine"] == "RedOrBlue.int8.engine"
    assert [engine["parity"]["agreement"] > 0.99 for engine in found["engines"]] == [True, True]
    assert found["engines"][1]["gate"]["criteria"] == ["agreement>=90%"]
    assert found["pytorch"]["miou"] > 90
    assert names(tmp_path / "finished") >= {"RedOrBlue.int8.engine", "RedOrBlue.int8.engine.json", "summary.json"}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_real_library_takes_the_graphs(made, precision):
    assert rtx.build((made[0] / "bundle" / f"{precision}.onnx").read_bytes(), (1, 24, 36, 3)) > 1000


def test_a_gate_that_the_simulation_misses_leaves_no_bundle(made, scenes, weights, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    make_bundle(output / "bundle")  # of an earlier deployment
    with pytest.raises(GateError, match=r"int8: error .* allowed 1e-09; most damage is done in INT8 by head") as missed:
        deploy(weights, scenes / "images", output, gate="error<=1e-9", io="tensor", **NET)
    made_of = {"RedOrBlue.onnx", "RedOrBlue.ranges.json", "RedOrBlue.sensitivity.json"}
    assert names(output) == {*made_of, "summary.json", *REPORT, ".fcn-deploy"}
    assert missed.value.exit_code == 3


def test_with_a_gpu_the_engines_are_built_and_verified_against_pytorch(on_gpu, scenes, weights, tmp_path):
    output = tmp_path / "out"
    images, labels = scenes / "images", scenes / "labels"
    summary = deploy(weights, images, output, data=images, labels=labels, **NET, **QUICK)
    assert names(output) == {
        *("RedOrBlue.onnx", "RedOrBlue.ranges.json", "summary.json", *REPORT),
        *("RedOrBlue.fp16.engine", "RedOrBlue.fp16.engine.json"),
        *("RedOrBlue.int8.engine", "RedOrBlue.int8.engine.json"),
    }
    assert summary.ship.engine == "RedOrBlue.int8.engine"
    assert summary.gpu.startswith("Fake")
    assert summary.calibration == {"observed": 10, "judged": 10}
    assert summary.truth.pixels == 10 * 24 * 36
    assert [engine.simulates for engine in summary.engines] == [None, None]
    assert all(engine.simulated_agreement > 0.99 for engine in summary.engines)
    with Segmenter(output / "RedOrBlue.fp16.engine") as segmenter:
        assert segmenter.sidecar.gate.passed
    assert summary.gallery.engine == "RedOrBlue.int8.engine"
    assert {path.name for path in (output / "report").iterdir()} == {
        file for image in summary.gallery.images for file in image.pictures.values()
    }
    assert summary.origin.command[:2] == ("fcn-deploy", "deploy")
    text = (output / "report.html").read_text()
    assert "Ship RedOrBlue.int8.engine" in text
    assert summary.gpu in text


def test_the_bundle_is_kept_beside_the_engines_if_it_is_asked_for(on_gpu, scenes, weights, tmp_path):
    deploy(weights, scenes / "images", tmp_path / "out", bundle=True, **NET, **QUICK)
    assert check_bundle(tmp_path / "out" / "bundle").manifest.images == 2
    assert "RedOrBlue.fp16.engine" in names(tmp_path / "out")


def test_a_gate_that_is_missed_on_the_gpu_is_a_failed_deployment(on_gpu, scenes, weights, tmp_path):
    on_gpu.wrong = {"int8"}
    with pytest.raises(GateError, match="INT8 missed its gate, and was not written"):
        deploy(weights, scenes / "images", tmp_path / "out", **NET, **QUICK)
    assert "RedOrBlue.int8.engine" not in names(tmp_path / "out")
    assert "RedOrBlue.fp16.engine" in names(tmp_path / "out")


@pytest.mark.slow
def test_a_later_deployment_for_cpus_removes_bundle_and_engines(on_gpu, scenes, weights, tmp_path):
    output, images = tmp_path / "out", scenes / "images"
    deploy(weights, images, output, bundle=True, **NET, **QUICK)
    deploy(weights, images, output, **{**NET, "backend": "onnxruntime", "int8": False}, **QUICK)
    kept = {"RedOrBlue.onnx", "RedOrBlue.fp32.onnx", "RedOrBlue.fp32.onnx.json", "summary.json"}
    assert names(output) == {*kept, *REPORT}


def test_a_folder_of_other_files_in_the_place_of_the_bundle_is_refused_at_once(scenes, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(deploying, "export", lambda *arguments, **options: pytest.fail("the work began"))
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    (tmp_path / "out" / "bundle" / "mine.txt").write_text("")
    with pytest.raises(InputError, match=r"a folder that has mine\.txt"):
        deploy(weights, scenes / "images", tmp_path / "out", **NET)


def test_images_that_fit_no_profile_are_refused_at_once(scenes, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(deploying, "export", lambda *arguments, **options: pytest.fail("the work began"))
    with pytest.raises(InputError, match=r"\.png fits no profile; got 24x36; expected 1x32x32"):
        deploy(weights, scenes / "images", tmp_path / "out", opt_shape="32x32", **NET)


def test_profiles_that_are_stated_are_those_of_the_bundle(scenes, weights, tmp_path):
    shapes = {"min_shape": "1x16x16", "opt_shape": "1x24x36", "max_shape": "4x48x64"}
    deploy(weights, scenes / "images", tmp_path / "out", **shapes, **NET)
    profiles = check_bundle(tmp_path / "out" / "bundle").manifest.profiles
    assert profiles == ({"min": [1, 16, 16], "opt": [1, 24, 36], "max": [4, 48, 64]},)


def test_engines_that_give_logits_are_held_against_logits(scenes, weights, tmp_path):
    deploy(weights, scenes / "images", tmp_path / "out", io="tensor", **NET)
    checked = check_bundle(tmp_path / "out" / "bundle")
    (first, _) = load_expected(checked.read("expected.npz"), "tensor", checked.manifest.images)
    assert (first.result.dtype, first.result.shape) == (np.float32, (2, 24, 36))


def test_fp16_alone_is_audited_by_the_calibration(scenes, weights, tmp_path):
    deploy(weights, scenes / "images", tmp_path / "out", **{**NET, "int8": False})
    manifest = check_bundle(tmp_path / "out" / "bundle").manifest
    assert [*manifest.graphs] == ["fp16"]
    assert manifest.graphs["fp16"].precision.audited is True


def test_stages_are_taken_over(scenes, weights, tmp_path):
    with pytest.raises(GateError):
        deploy(weights, scenes / "images", tmp_path / "out", gate="error<=1e-9", io="tensor", **NET)
    summary = deploy(weights, scenes / "images", tmp_path / "out", resume=True, io="tensor", **NET)
    assert summary.resumed == ("export", "ranges", "fp16", "int8", "measures")
    assert (tmp_path / "out" / "bundle").is_dir()


def test_a_jetson_is_told_of_the_packages_for_its_cuda(scenes, weights, tmp_path, capsys):
    arguments = ["deploy", "--weights", weights, "--calib-data", scenes / "images", "--model", NET["model"]]
    rest = ["--normalization", "zero-one", "--backend", "tensorrt", "-o", tmp_path / "out"]
    assert run([str(each) for each in (*arguments, *rest)]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"; on a Jetson with JetPack 6 in place of that: {command_elsewhere('cli', 'cuda12')}")


def test_the_command_says_in_one_line_what_is_written_and_what_to_do(scenes, weights, tmp_path, capsys):
    arguments = ["deploy", "--weights", weights, "--calib-data", scenes / "images", "--model", NET["model"]]
    rest = ["--normalization", "zero-one", "--backend", "tensorrt-rtx", "-o", tmp_path / "out"]
    assert run([str(each) for each in (*arguments, *rest)]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    reason = "this machine cannot run tensorrt-rtx, so a bundle for the device will be written: no NVIDIA driver"
    assert any(line.startswith(reason) for line in lines)
    assert f"wrote {tmp_path}/out/bundle: copy it to the device, and run there: fcn-deploy finish bundle" in lines
    assert lines[-1].startswith("the device needs fcn-deploy without its extra host, and: ")
    assert "tensorrt-rtx" in lines[-1]
    tried = any(line.startswith("building fp16 with tensorrt-rtx") for line in lines)
    assert tried == find_flavor("tensorrt-rtx").installed
    assert any(line.startswith("profile: 1x24x36, the sizes of your images") for line in lines)
    assert "simulated on the CPU, not timed" in said.out
    assert "ms, median" not in said.out


def test_what_the_library_refuses_is_known_before_the_bundle_is_written(scenes, weights, tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    monkeypatch.setattr(bundling.Simulated, "graphs", lambda made: {"fp16": b"no graph", "int8": b"no graph"})
    with pytest.raises(InputError, match="does not take the graph"):
        deploy(weights, scenes / "images", tmp_path / "out", **{**NET, "backend": "tensorrt-rtx"})
    assert "bundle" not in names(tmp_path / "out")


def test_the_real_library_builds_the_engines_of_the_bundle_for_the_gpu_of_the_device(made, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    monkeypatch.setattr(device.Target, "current", lambda target: nullcontext())  # which needs a driver
    target = device.Target(find_flavor("tensorrt-rtx"), Gpu(0, "none", "8.6", 1 << 30))
    engines = build_on_device(check_bundle(made[0] / "bundle"), target, Silent())
    for precision, engine in engines.items():
        sidecar = engine.sidecar
        assert (sidecar.precision.requested, sidecar.backend, sidecar.target["gpu"]) == (
            precision,
            "tensorrt-rtx",
            ["8.6"],
        )
        assert sidecar.profiles == ({"min": [1, 24, 36], "opt": [1, 24, 36], "max": [1, 24, 36]},)
        assert len(engine.data) > 1000


def test_the_function_is_public():
    assert fd.finish.__name__ == "finish"
