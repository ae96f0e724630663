import json
import shutil

import numpy as np
import pytest
from PIL import Image

import fcn_deploy as fd
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.cli.app import run
from fcn_deploy.errors import ArtifactError, GateError, InputError, UsageError
from fcn_deploy.runtime import Segmenter
from fcn_deploy.workflows import deploy_config, deploying
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.deploying import deploy
from tests.support.exports import remembering

QUICK = {"warmup": 0, "duration": 0, "iterations": 5}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    from fcn_deploy.demo import CALIBRATION_SEEDS, EVALUATION_SEEDS, write_scenes

    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "calibration", CALIBRATION_SEEDS[:10], (96, 128))
    write_scenes(folder / "evaluation", EVALUATION_SEEDS[:4], (97, 127))
    return folder


@pytest.fixture(scope="module")
def weights():
    from fcn_deploy.demo import checkpoint_path

    return checkpoint_path()


@pytest.fixture(scope="module")
def deployed(scenes, weights, tmp_path_factory):
    output = tmp_path_factory.mktemp("deployed") / "out"
    return output, deploy(weights, scenes / "calibration" / "images", output, int8=True, **QUICK)


@pytest.fixture(scope="module")
def exported_before():
    return {}


@pytest.fixture(autouse=True)
def one_export_for_all(exported_before, monkeypatch):
    """Exports each net once: every deployment here begins with the same one. That of `deployed` is its own."""
    monkeypatch.setattr(deploying, "export", remembering(deploying.export, exported_before))


def test_the_folder_holds_the_model_the_engines_and_a_summary(deployed):
    output, summary = deployed
    assert {path.name for path in output.iterdir()} == {
        "fcn8s.onnx",
        "fcn8s.ranges.json",
        "fcn8s.fp32.onnx",
        "fcn8s.fp32.onnx.json",
        "fcn8s.int8.onnx",
        "fcn8s.int8.onnx.json",
        "summary.json",
        "report.html",
        "report",
    }
    written = json.loads((output / "summary.json").read_text())
    assert written == json.loads(json.dumps(summary.to_json()))
    assert written["passed"] is True
    assert [engine["precision"] for engine in written["engines"]] == ["fp32", "int8"]
    assert str(output) not in (output / "summary.json").read_text()


def test_the_engines_carry_the_gate_they_met(deployed):
    output, summary = deployed
    for result in summary.engines:
        with Segmenter(output / result.file) as segmenter:
            gate = segmenter.sidecar.gate
        assert gate == result.gate
        assert gate.passed
    fp32, int8 = summary.engines
    assert fp32.parity.agreement >= 0.9999
    assert int8.parity.agreement >= 0.97


def test_every_fifth_image_is_judged_on_and_never_observed(deployed, scenes):
    output, summary = deployed
    assert summary.calibration == {"observed": 8, "judged": 2}
    observed = Ranges.load(output / "fcn8s.ranges.json").data
    from fcn_deploy.data.folders import ImageFolder

    rest, _ = ImageFolder.open(scenes / "calibration" / "images").every_fifth()
    assert observed == calibrate(output / "fcn8s.onnx", rest).data


def test_with_labels_the_drop_of_miou_is_the_gate(scenes, weights, tmp_path):
    judged = scenes / "calibration"  # more scenes than there are to evaluate on: the drop scatters less
    summary = deploy(
        weights,
        scenes / "calibration" / "images",
        tmp_path / "out",
        int8=True,
        data=judged / "images",
        labels=judged / "labels",
        **QUICK,
    ).to_json()
    assert summary["calibration"] == {"observed": 10, "judged": 10}
    assert 20 < summary["pytorch"]["miou"] <= 100
    int8 = summary["engines"][1]
    assert int8["gate"]["miou_drop"] == pytest.approx(summary["pytorch"]["miou"] - int8["miou"])
    assert int8["miou_drop"]["low"] <= int8["miou_drop"]["points"] <= int8["miou_drop"]["high"]


def test_a_missed_gate_ships_no_engine(scenes, weights, tmp_path, monkeypatch, capsys):
    """Ranges a tenth of what they are clip everything; the engine must not get out."""
    from fcn_deploy.artifacts.ranges import Range
    from fcn_deploy.engines import onnxruntime

    real = onnxruntime.choose

    def clipping(histograms, method, *, symmetric):
        chosen = real(histograms, method, symmetric=symmetric)
        return {name: Range(r.lo / 10, r.hi / 10) for name, r in chosen.items()}

    monkeypatch.setattr(onnxruntime, "choose", clipping)
    output = tmp_path / "out"
    output.mkdir()
    stale = ("fcn8s.fp32.onnx", "fcn8s.int8.onnx", "fcn8s.int8.onnx.json")
    for name in stale:
        (output / name).write_text("of an earlier deployment")
    arguments = ["deploy", "--weights", weights, "--calib-data", scenes / "calibration" / "images", "--int8"]
    quick = ["--iterations", 1, "--duration", 0, "--warmup", 0]
    assert run([str(a) for a in (*arguments, *quick, "-o", output, "--json")]) == 3
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert summary["passed"] is False
    assert summary["engines"][0]["gate"]["passed"] is True
    assert "most damage is done in INT8 by conv" in said.err
    assert "agreement" in summary["engines"][1]["failures"][0]
    assert "no engine was written" in said.err
    made = {"fcn8s.onnx", "fcn8s.ranges.json", "fcn8s.sensitivity.json", "summary.json"}
    names = {*made, "report.html", "report", ".fcn-deploy"}
    assert {path.name for path in output.iterdir()} == names


def test_gates_asked_for_count_in_place_of_the_defaults_and_are_recorded(scenes, weights, tmp_path, capsys):
    images, output = scenes / "calibration" / "images", tmp_path / "out"
    arguments = ["deploy", "--weights", weights, "--calib-data", images, "--int8", "--io", "tensor", "-o", output]
    quick = ["--iterations", 1, "--duration", 0, "--warmup", 0, "--json"]
    gates = ["--gate", "agreement >= 90%", "--gate", "error<=1", "--gate", "fp32:error<=1e-3"]
    assert run([str(a) for a in (*arguments, *quick, *gates)]) == 0
    summary = json.loads(capsys.readouterr().out)
    wanted = {"fp32": ["error<=0.001"], "int8": ["agreement>=90%", "error<=1"]}
    assert {engine["precision"]: engine["gate"]["criteria"] for engine in summary["engines"]} == wanted
    for precision, criteria in wanted.items():
        sidecar = json.loads((output / f"fcn8s.{precision}.onnx.json").read_text())
        assert sidecar["gate"]["criteria"] == criteria
    low, high = (summary["engines"][1]["parity"][f"agreement_{end}"] for end in ("low", "high"))
    assert low <= summary["engines"][1]["parity"]["agreement"] <= high

    too_much = ["--gate", "error<=1e-9"]
    assert run([str(a) for a in (*arguments, *quick, *too_much)]) == 3
    said = capsys.readouterr()
    assert "of the logits' range, allowed 1e-09" in said.err
    fp32, int8 = json.loads(said.out)["engines"]
    assert (fp32["gate"]["criteria"], fp32["gate"]["passed"]) == (["agreement>=99.99%", "error<=0.0001"], True)
    assert (int8["gate"]["criteria"], int8["gate"]["passed"]) == (["error<=1e-09"], False)
    assert not list(output.glob("*.int8.*"))


@pytest.mark.parametrize(
    ("gate", "options", "message"),
    [
        ("miou_drop<=0.3", {"int8": True}, "`data` and `labels`"),
        ("error<=1e-3", {"io": "image"}, '`io="tensor"`'),
        ("int8:agreement>=98%", {}, "expected fp32"),
        ("fp16:agreement>=98%", {"int8": True}, "expected fp32 or int8"),
    ],
)
def test_a_gate_that_cannot_be_judged_is_refused_at_once(tmp_path, gate, options, message):
    with pytest.raises(UsageError, match=message):
        deploy(tmp_path, tmp_path, tmp_path, gate=gate, **options)


@pytest.mark.parametrize(
    "options",
    [("--threads", "0"), ("--calib-size", "0x4"), ("--size-divisor", "8"), ("--max-images", "0"), ("--labels", "d")],
)
def test_the_demo_generates_nothing_for_options_that_are_wrong(options, tmp_path):
    assert run(["deploy", "--demo", *options, "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_the_demo_generates_nothing_for_a_gate_that_cannot_be_judged(tmp_path, capsys):
    assert run(["deploy", "--demo", "--gate", "fp16:agreement>=98%", "-o", str(tmp_path / "out")]) == 2
    assert "got fp16:agreement>=98%" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_int8_nothing_is_calibrated(scenes, weights, tmp_path):
    summary = deploy(weights, scenes / "calibration" / "images", tmp_path / "out", **QUICK)
    assert [engine.precision for engine in summary.engines] == ["fp32"]
    assert not (tmp_path / "out" / "fcn8s.ranges.json").exists()


def test_too_few_images_to_hold_one_out(weights, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / f"{index}.png")
    with pytest.raises(InputError, match="too few images"):
        deploy(weights, folder, tmp_path / "out", int8=True)


def test_labels_need_their_images(weights, tmp_path):
    with pytest.raises(UsageError, match="`data` and `labels`"):
        deploy(weights, tmp_path, tmp_path, labels=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--weights", "w.pth"), ("--calib-data", "d"), ("--demo", "--weights", "w.pth"), ("--demo", "--labels", "d")],
)
def test_deploy_asks_for_a_net_and_images_or_the_demo(arguments, tmp_path):
    assert run(["deploy", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_step_that_fails_stops_the_deployment(scenes, tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        deploy(tmp_path / "none.pth", scenes / "calibration" / "images", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_deployment_leaves_no_folder_that_was_not_there(scenes, weights, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(deploying, "export", interrupt)
    (tmp_path / "there").mkdir()
    for folder in ("new", "there"):
        with pytest.raises(KeyboardInterrupt):
            deploy(weights, scenes / "calibration" / "images", tmp_path / folder)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not list((tmp_path / "there").iterdir())


def test_without_int8_the_engine_of_an_earlier_deployment_goes(deployed, scenes, weights, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(deployed[0], output)
    arguments = ["deploy", "--weights", weights, "--calib-data", scenes / "calibration" / "images", "-o", output]
    assert run([str(a) for a in (*arguments, "--iterations", 1, "--duration", 0, "--warmup", 0)]) == 0
    names = {"fcn8s.onnx", "fcn8s.fp32.onnx", "fcn8s.fp32.onnx.json", "summary.json", "report.html", "report"}
    assert {path.name for path in output.iterdir()} == names
    said = capsys.readouterr().err
    assert "removed" in said
    assert "fcn8s.int8.onnx of an earlier deployment" in said
    assert "the gate will rest on 2 images" in said


def test_what_cannot_work_is_said_before_the_work(scenes, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(deploying, "export", lambda *args, **kwargs: pytest.fail("the work began"))
    images = scenes / "calibration" / "images"
    with pytest.raises(UsageError, match="calibration method"):
        deploy(weights, images, tmp_path / "out", int8=True, calib_method="magic")
    with pytest.raises(InputError, match="not a folder"):
        deploy(weights, images, tmp_path / "out", data=images, labels=tmp_path / "none")
    monkeypatch.setattr(deploy_config, "exact_8_bits", lambda: False)
    with pytest.raises(ArtifactError, match="cannot be verified on this one"):
        deploy(weights, images, tmp_path / "out", int8=True, target_cpu="vnni")


def test_a_folder_where_a_file_is_to_go_is_an_input_error(scenes, weights, tmp_path):
    (tmp_path / "out" / "fcn8s.onnx").mkdir(parents=True)
    with pytest.raises(InputError, match="a folder"):
        deploy(weights, scenes / "calibration" / "images", tmp_path / "out", **QUICK)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"fcn8s.onnx", ".fcn-deploy"}  # the export is kept


def test_auto_chooses_the_method_on_images_of_their_own(scenes, weights, tmp_path):
    summary = deploy(weights, scenes / "calibration" / "images", tmp_path, int8=True, calib_method="auto", **QUICK)
    assert summary.calibration == {"observed": 7, "judged": 2}  # of ten: two to judge, then one of eight to choose on
    precision = json.loads((tmp_path / "fcn8s.int8.onnx.json").read_text())["precision"]
    assert precision["method"] == next(iter(precision["tried"]))
    assert set(precision["tried"]) == {"minmax", "percentile", "entropy", "mse"}


def test_the_report_has_the_images_that_agree_the_least_and_can_be_made_again(scenes, weights, tmp_path):
    output, evaluation = tmp_path / "out", scenes / "evaluation"
    images, labels = evaluation / "images", evaluation / "labels"
    # Of four scenes, on which the mIoU may drop by more than the default allows.
    judged = {"data": images, "labels": labels, "gate": "int8:miou_drop<=2"}
    summary = deploy(weights, scenes / "calibration" / "images", output, int8=True, **judged, **QUICK)
    shown = summary.gallery.images
    assert [image.agreement for image in shown] == sorted(image.agreement for image in shown)
    assert {image.name for image in shown} == {path.name for path in images.iterdir()}
    assert np.mean([image.agreement for image in shown]) == pytest.approx(engine_shown(summary).parity.agreement)
    names = {file for image in shown for file in image.pictures.values()}
    assert {path.name for path in (output / "report").iterdir()} == names
    assert len(summary.pytorch_class_iou) == len(engine_shown(summary).class_iou) == 8
    present = [value for value in engine_shown(summary).class_iou if value is not None]
    assert np.mean(present) == pytest.approx(engine_shown(summary).miou)
    assert sum(layer.macs for layer in summary.layers) > 0
    assert set(engine_shown(summary).layers) == {layer.name for layer in summary.layers}
    command = summary.origin.command
    assert command[:3] == ("fcn-deploy", "deploy", "--weights")
    assert not [word for word in command if word.startswith("/")]
    page = (output / "report.html").read_bytes()
    (output / "report.html").unlink()
    fd.report(output)
    assert (output / "report.html").read_bytes() == page


def engine_shown(summary):
    return next(engine for engine in summary.engines if engine.file == summary.gallery.engine)


def test_without_a_report_there_are_no_pictures_and_those_of_before_go(deployed, scenes, weights, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(deployed[0], output)
    arguments = ["deploy", "--weights", weights, "--calib-data", scenes / "calibration" / "images", "-o", output]
    quick = ["--iterations", 1, "--duration", 0, "--warmup", 0, "--no-report"]
    assert run([str(a) for a in (*arguments, *quick)]) == 0
    assert not (output / "report.html").exists()
    assert not (output / "report").exists()
    assert f"removed {output / 'report.html'} of an earlier deployment" in capsys.readouterr().err
    written = json.loads((output / "summary.json").read_text())
    assert "gallery" not in written
    assert written["origin"]["command"][-1] == "--no-report"


def test_a_report_that_cannot_be_written_is_said_before_the_work(scenes, weights, tmp_path):
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot write .*report\.html; got a folder"):
        deploy(weights, scenes / "calibration" / "images", tmp_path / "out", **QUICK)


def test_a_missed_gate_has_a_report_that_says_why_and_what_is_taken_over_has_its_pictures(scenes, weights, tmp_path):
    arguments = (weights, scenes / "calibration" / "images", tmp_path / "out")
    with pytest.raises(GateError) as missed:
        deploy(*arguments, int8=True, gate="agreement>=99.9999%", **QUICK)
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Do not ship" in text
    assert "required 99.9999%" in text
    assert 'id="sensitivity"' in text
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "out" / "report").iterdir()}
    summary = deploy(*arguments, int8=True, gate="agreement>=50%", resume=True, **QUICK)
    assert "measures" in summary.resumed
    assert summary.gallery.images == missed.value.report.gallery.images
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "report").iterdir()} == pictures
    assert not (tmp_path / "out" / "fcn8s.sensitivity.json").exists()
    assert 'id="sensitivity"' not in (tmp_path / "out" / "report.html").read_text()
