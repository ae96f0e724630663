"""Measures that cannot lie: what is said of ground truth, references and gates that show nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.errors import GateError, InputError, UsageError
from fcn_deploy.workflows import deploying, exporting
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.evaluating import evaluate
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.verifying import verify
from tests.support import colour_nets

QUICK = {"warmup": 0, "duration": 0, "iterations": 2}
NET = "tests.support.colour_nets:RedOrBlue"
RIGHT = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return colour_nets.write_scenes(tmp_path_factory.mktemp("scenes") / "set")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return colour_nets.save_weights(tmp_path_factory.mktemp("weights") / "net.pth")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    path = tmp_path_factory.mktemp("classes") / "classes.csv"
    path.write_text("\n".join(colour_nets.CLASSES))
    return path


@pytest.fixture(scope="module")
def net(weights, classes):
    return export(weights, model=NET, class_names=classes, **RIGHT)


def deployed(weights, scenes, classes, output, labels, **options):
    given = {"model": NET, "class_names": classes, "int8": True, **RIGHT, **QUICK, **options}
    images = scenes / "images"
    try:
        return deploy(weights, images, output, data=images, labels=scenes / labels, **given)
    except GateError as error:
        return error.report


# evaluate


def test_right_labels_give_100_and_no_warning(net, scenes):
    found = evaluate(net, scenes / "images", scenes / "labels")
    assert found.miou == 100
    assert (found.truth.ignored, found.truth.absent, found.warnings) == (0.0, (), ())
    data = found.to_json()
    assert data["truth"]["ignored"] == 0
    assert data["truth"]["absent_classes"] == data["truth"]["not_understood"] == data["warnings"] == []


def test_masks_of_0_and_255_are_said_by_name(net, scenes, call, tmp_path):
    model = tmp_path / "net.onnx"
    net.save(model)
    arguments = ("evaluate", model, "--data", scenes / "images", "--labels", scenes / "masks")
    said = call(*arguments)
    assert "warning: the net predicts classes that never occur in the ground truth: object (" in said.err
    assert "255 is ignored on" in said.err
    assert "% of the pixels ignored (255); never occurring: object" in said.out
    data = json.loads(call(*arguments, "--json").out)
    assert data["truth"]["absent_classes"] == ["object"]
    assert data["truth"]["ignored_values"] == [255]
    assert data["truth"]["predicted_absent_classes"]["object"] == pytest.approx(data["truth"]["ignored"])
    assert len(data["warnings"]) == 2


def test_mostly_ignored_is_a_warning_and_all_ignored_an_error(net, scenes):
    found = evaluate(net, scenes / "images", scenes / "mostly")
    assert found.warnings[0].startswith(
        f"{found.truth.ignored:.1%} of the pixels of the ground truth are ignored (255)"
    )
    with pytest.raises(InputError, match=r"ignored labels no pixel.*got 255 everywhere, which is ignored"):
        evaluate(net, scenes / "images", scenes / "ignored")


def test_a_file_of_truth_that_does_not_fit_is_named_before_anything_runs(net, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("fcn_deploy.workflows.evaluating.confusion_matrices", lambda *a, **k: pytest.fail("it ran"))
    for path in (scenes / "labels").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    stray = np.asarray(Image.open(tmp_path / "4.png")).copy()
    stray[3, 3:15] = np.arange(100, 112)
    Image.fromarray(stray).save(tmp_path / "4.png")
    with pytest.raises(
        InputError, match=r"4\.png holds 12 values.*got 100, 101, .*107 and 4 more; expected 0\.\.1, or 255"
    ):
        evaluate(net, scenes / "images", tmp_path)
    Image.new("L", (9, 8)).save(tmp_path / "2.png")
    with pytest.raises(InputError, match=r"2\.png is not of the size of its image .*2\.png; got 8x9; expected 24x36"):
        evaluate(net, scenes / "images", tmp_path)


def test_a_turned_image_has_the_size_that_its_truth_must_have(net, tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10), (200, 0, 0)).save(tmp_path / "images" / "a.jpg", exif=exif)
    Image.new("L", (10, 20), 1).save(tmp_path / "labels" / "a.png")
    found = evaluate(net, tmp_path / "images", tmp_path / "labels")
    assert found.truth.pixels == 200


def test_a_reference_near_chance_is_said(weights, classes, scenes):
    swapped = export(weights, model=NET, class_names=classes, color="bgr", **RIGHT)
    found = evaluate(build_engine(swapped), scenes / "images", scenes / "labels", reference=swapped)
    assert found.reference.parity.agreement == 1
    (warning,) = found.warnings
    assert "the normalisation or the class order is wrong" in warning
    assert warning.startswith("RedOrBlue, exported itself has an mIoU of 0.00")
    alone = evaluate(swapped, scenes / "images", scenes / "labels")
    assert "the normalisation or the class order is wrong" in alone.warnings[0]


# Its own reference


@pytest.mark.parametrize("function", ["verify", "evaluate"])
def test_nothing_is_its_own_reference(net, scenes, tmp_path, function, weights):
    path, copy = tmp_path / "net.onnx", tmp_path / "copy.onnx"
    net.save(path)
    net.save(copy)

    def compared(engine, reference):
        if function == "verify":
            return verify(engine, reference, scenes / "images")
        return evaluate(engine, scenes / "images", scenes / "labels", reference=reference)

    checkpoint = f"pytorch:{weights}"
    (tmp_path / "link.onnx").symlink_to(path)
    for engine, reference in (
        (net, net),
        (path, path),
        (path, str(path)),
        (path, copy),
        (net, copy),
        (path, tmp_path / "link.onnx"),
        (checkpoint, checkpoint),
    ):
        with pytest.raises(UsageError, match="cannot be its own reference"):
            compared(engine, reference)
    compared(build_engine(net), net)


# verify


def test_nan_is_said_instead_of_an_agreement(scenes, call, tmp_path, net, weights):
    fine, broken = tmp_path / "fine.onnx", tmp_path / "broken.onnx"
    build_engine(net, io="tensor").save(fine)
    divided(net).save(broken)
    said = call("verify", fine, "--reference", broken, "--data", scenes / "images", code=3)
    assert "logits of the reference are NaN or infinite on 6 of 6 images" in said.out + said.err
    assert "agreement" not in said.out


def divided(net):
    """The same net, its logits divided by zero."""
    import onnx

    from fcn_deploy.graph.model import ExportedModel

    proto = onnx.load_model_from_string(net.content)
    (last,) = [node for node in proto.graph.node if "logits" in node.output]
    last.output[:] = ["finite" if name == "logits" else name for name in last.output]
    zero = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    proto.graph.initializer.append(zero)
    proto.graph.node.append(onnx.helper.make_node("Mul", ["finite", "zero"], ["nothing"], "nothing"))
    proto.graph.node.append(onnx.helper.make_node("Div", ["nothing", "zero"], ["logits"], "divided"))
    return ExportedModel.parse(proto.SerializeToString())


def test_one_label_everywhere_is_no_agreement(scenes, call, tmp_path, net):
    images = tmp_path / "blue"
    images.mkdir()
    for index in range(3):
        Image.new("RGB", (20, 20), (10, 10, 200 + index)).save(images / f"{index}.png")
    engine, model = tmp_path / "engine.onnx", tmp_path / "net.onnx"
    build_engine(net).save(engine)
    net.save(model)
    said = call("verify", engine, "--reference", model, "--data", images, code=3)
    assert "agreement says nothing: both nets give label 0 at every pixel" in said.out
    assert "100" not in said.out
    assert "images on which the net finds several classes" in said.err


def test_one_image_has_no_interval_and_says_so(scenes, call, tmp_path, net):
    engine, model = tmp_path / "engine.onnx", tmp_path / "net.onnx"
    build_engine(net).save(engine)
    net.save(model)
    said = call("verify", engine, "--reference", model, "--data", scenes / "images", "--max-images", 1)
    assert "agreement 100.000% (one image: no interval), over 1 image" in said.out
    arguments = ("--data", scenes / "images", "--labels", scenes / "labels", "--max-images", 1)
    said = call("evaluate", engine, "--reference", model, *arguments)
    assert said.out.count("(one image: no interval)") == 2


# deploy


def test_a_forgotten_normalisation_is_said_in_the_summary_and_its_table(weights, scenes, classes, tmp_path, call):
    """The net was trained on BGR, and nobody says so, nor how images were normalised."""
    forgotten = {"mean": None, "std": None, "scale": None, "color": "bgr"}
    summary = deployed(weights, scenes, classes, tmp_path / "out", "labels", **forgotten)
    assert summary.pytorch_miou == 0
    chance, *_, assumed = summary.warnings
    assert chance.startswith("PyTorch itself has an mIoU of 0.00, and guessing by frequency gives ")
    assert assumed.startswith("the normalisation was assumed: BGR, scale 0.0039")
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["warnings"] == list(summary.warnings)
    assert written["normalization"]["assumed"] is True
    assert written["truth"]["ignored"] == 0
    assert Summary.from_json(written).warnings == summary.warnings


def test_masks_of_0_and_255_are_said_by_deploy(weights, scenes, classes, tmp_path):
    summary = deployed(weights, scenes, classes, tmp_path / "out", "masks")
    assert "object" in summary.warnings[0]
    assert summary.truth.absent == ("object",)
    int8 = summary.engines[1]
    assert int8.gate.criteria == ("miou_drop<=0.5", "agreement>=95%")
    assert not any("assumed" in warning for warning in summary.warnings)


@pytest.mark.parametrize("labels", ["ignored", "sizes", "values"])
def test_all_truth_is_read_before_anything_is_exported(weights, scenes, classes, tmp_path, monkeypatch, labels):
    folder = tmp_path / "labels"
    folder.mkdir()
    for path in (scenes / ("ignored" if labels == "ignored" else "labels")).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if labels == "sizes":
        Image.new("L", (9, 9)).save(folder / "5.png")
    if labels == "values":
        Image.new("L", (36, 24), 7).save(folder / "5.png")
    monkeypatch.setattr(exporting, "_traced", lambda *a, **k: pytest.fail("the export began"))
    message = {"ignored": "labels no pixel", "sizes": r"5\.png is not of the size", "values": r"5\.png holds a value"}
    images = scenes / "images"
    with pytest.raises(InputError, match=message[labels]) as caught:
        deploy(weights, images, tmp_path / "out", data=images, labels=folder, model=NET, class_names=classes, **QUICK)
    assert caught.value.exit_code == 6
    assert not (tmp_path / "out").exists()


@pytest.fixture
def int8_takes(monkeypatch):
    """Makes every INT8 engine take so many times the time of FP32."""

    def int8_takes(times):
        real = deploying.time_engines

        def measured(contestants, *arguments):
            timings = real(contestants, *arguments)
            timings["int8"].latencies[:] = times * timings["fp32"].latencies
            return timings

        monkeypatch.setattr(deploying, "time_engines", measured)

    return int8_takes


def test_an_int8_engine_that_is_slower_than_fp32_is_said(weights, scenes, classes, tmp_path, int8_takes, call):
    int8_takes(2)
    summary = deployed(weights, scenes, classes, tmp_path / "out", "labels", iterations=5)
    assert "RedOrBlue.int8.onnx takes 2.00x the time of FP32 on this machine: it is slower" in summary.warnings
    reason = "INT8 is slower than FP32 here (2.00x the time, quartiles 2.00-2.00)"
    assert str(summary.ship) == f"ship RedOrBlue.fp32.onnx: {reason}"
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    speedup = {"median": 1.0, "low": 1.0, "high": 1.0}
    assert written["ship"] == {"engine": "RedOrBlue.fp32.onnx", "reason": reason, "speedup": speedup}
    assert f"ship RedOrBlue.fp32.onnx: {reason}" in call("inspect", tmp_path / "out" / "summary.json").out


def test_a_required_speedup_that_is_missed_ships_nothing_and_says_what_to_try(
    weights, scenes, classes, tmp_path, int8_takes, monkeypatch
):
    int8_takes(0.9)
    images, output = scenes / "images", tmp_path / "out"
    options = {"model": NET, "class_names": classes, "int8": True, **RIGHT, **QUICK, "iterations": 5}
    options |= {"data": images, "labels": scenes / "labels"}
    with pytest.raises(GateError) as caught:
        deploy(weights, images, output, require_speedup=1.2, **options)
    assert caught.value.exit_code == 3
    assert "int8: speed-up over FP32 1.11x (quartiles 1.11-1.11), required 1.2x" in str(caught.value)
    assert 'try the other `backend`, `bf16=True` with `backend="openvino"`' in str(caught.value)
    assert "damage" not in str(caught.value)
    assert not list(output.glob("*.int8.onnx"))
    int8 = caught.value.report.engines[1]
    assert int8.gate.speedup == pytest.approx(1 / 0.9)
    assert int8.gate.criteria[-1] == "speedup>=1.2"
    reason = "no engine to ship: INT8 missed its gate; FP32 met its gate, and can be deployed without it"
    assert str(caught.value.report.ship) == reason
    # With another requirement nothing is built or measured again.
    for name in ("export", "calibrate", "build_engine", "compare", "time_engines"):
        monkeypatch.setattr(deploying, name, lambda *a, **k: pytest.fail("the work was done again"))
    summary = deploy(weights, images, output, require_speedup=1.1, resume=True, **options)
    assert summary.resumed == ("export", "ranges", "fp32", "int8", "measures")
    sidecar = json.loads((output / "RedOrBlue.int8.onnx.json").read_text())
    assert sidecar["gate"]["speedup"] == pytest.approx(1 / 0.9)
    assert Summary.from_json(json.loads((output / "summary.json").read_text())) == summary
    assert summary.engines[0].gate.speedup is None


def test_an_int8_engine_that_is_faster_is_the_one_to_ship(weights, scenes, classes, tmp_path, int8_takes):
    int8_takes(0.5)
    summary = deployed(weights, scenes, classes, tmp_path / "out", "labels", iterations=5)
    assert summary.ship.engine == "RedOrBlue.int8.onnx"
    assert summary.ship.speedup.median == pytest.approx(2)


def test_a_net_of_one_label_ships_nothing(weights, scenes, classes, tmp_path):
    options = {"model": "tests.support.colour_nets:OneLabel", "int8": False}
    summary = deployed(weights, scenes, classes, tmp_path / "out", "labels", **options)
    assert not summary.passed
    assert summary.engines[0].failures == ("agreement says nothing: both nets give label 0 at every pixel",)
    assert not list((tmp_path / "out").glob("*.fp32.onnx"))
