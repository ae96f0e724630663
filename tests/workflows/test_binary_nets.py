"""Nets of one output channel go the whole way as binary nets, with two classes in every measure."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from fcn_deploy.errors import UsageError
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.evaluating import evaluate
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.predicting import predict
from fcn_deploy.workflows.references import NetCode, opened
from fcn_deploy.workflows.verifying import verify
from tests.support import custom_nets

SCALED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 1 / 255}
QUICK = {"warmup": 0, "duration": 0, "iterations": 1}
THRESHOLDS = {custom_nets.OneLogit: 0.0, custom_nets.OneProbability: 0.5}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of images, black and red and green, and the folder of their masks, 0 and 1 where they are red."""
    folder, random = tmp_path_factory.mktemp("binary"), np.random.default_rng(0)
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(6):
        truth = np.kron(random.integers(0, 3, (6, 8)), np.ones((8, 8), int))
        Image.fromarray(colors[truth]).save(folder / "images" / f"{index}.png")
        Image.fromarray((truth == 1).astype(np.uint8)).save(folder / "masks" / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(custom_nets.OneLogit().state_dict(), path)
    return path


@pytest.fixture(scope="module", params=THRESHOLDS, ids=lambda kind: kind.__name__)
def net(request, weights):
    name = request.param.__name__
    return export(weights, model=f"tests.support.custom_nets:{name}", **SCALED), THRESHOLDS[request.param]


def test_a_binary_net_has_two_classes_and_the_threshold_of_its_last_operator(net):
    spec = net[0].spec
    assert (spec.num_classes, spec.channels, spec.threshold) == (2, 1, net[1])
    assert (spec.classes, spec.palette) == (("background", "foreground"), ((0, 0, 0), (128, 0, 0)))


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_engines_of_a_binary_net_find_both_classes(net, scenes, backend, precision):
    model, _ = net
    ranges = calibrate(model, scenes / "images") if precision == "int8" else None
    engine = build_engine(model, precision=precision, ranges=ranges, backend=backend)
    check = verify(engine, model, data=scenes / "images")
    assert check.passed
    assert check.parity.only_label is None
    found = evaluate(engine, scenes / "images", scenes / "masks", reference=model)
    assert found.miou == 100.0
    assert found.truth.absent == ()
    assert found.accuracy.iou == {"background": 100.0, "foreground": 100.0}


@pytest.mark.parametrize("kind", THRESHOLDS, ids=lambda kind: kind.__name__)
def test_a_checkpoint_alone_has_the_threshold_that_its_export_would_have(kind, weights, scenes):
    code = NetCode(f"tests.support.custom_nets:{kind.__name__}")
    with opened([f"pytorch:{weights}"], code=code) as (segmenter,):
        assert segmenter.spec.threshold == THRESHOLDS[kind]


def test_a_checkpoint_alone_whose_threshold_is_not_known_is_warned_about(weights, caplog):
    code = NetCode("tests.support.custom_nets:OneClamped")
    with caplog.at_level(logging.WARNING, "fcn_deploy"), opened([f"pytorch:{weights}"], code=code) as (segmenter,):
        assert segmenter.spec.threshold == 0
    assert "every value of the net lies in 0..1" in caplog.text
    assert "export it with `threshold`" in caplog.text


def test_deploy_measures_a_binary_net_by_two_classes(weights, scenes, tmp_path):
    summary = deploy(
        weights,
        scenes / "images",
        tmp_path,
        data=scenes / "images",
        labels=scenes / "masks",
        int8=True,
        model="tests.support.custom_nets:OneProbability",
        **SCALED,
        **QUICK,
    )
    assert summary.passed
    assert summary.pytorch_miou == 100.0
    engine = tmp_path / "OneProbability.int8.onnx"
    spec = json.loads(engine.with_name(f"{engine.name}.json").read_text())["spec"]
    assert (spec["threshold"], spec["requires"]) == (0.5, ["threshold"])
    predict(engine, scenes / "images", tmp_path / "masks")
    for path in sorted((scenes / "masks").iterdir()):
        assert np.array_equal(Image.open(tmp_path / "masks" / f"{path.stem}.labels.png"), Image.open(path))


def test_masks_of_0_and_255_are_warned_about_by_name_and_read_by_a_label_map(net, scenes, tmp_path):
    model, _ = net
    (tmp_path / "masks").mkdir()
    for path in (scenes / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(tmp_path / "masks" / path.name)
    engine = build_engine(model)
    found = evaluate(engine, scenes / "images", tmp_path / "masks")
    assert found.truth.absent == ("foreground",)
    assert [warning for warning in found.warnings if "foreground" in warning and "255 is ignored on" in warning]
    mapped = evaluate(engine, scenes / "images", tmp_path / "masks", label_map="255=1")
    assert (mapped.miou, mapped.warnings) == (100.0, ())
    assert mapped.truth.ignored == 0


def test_a_threshold_moves_the_border_in_every_engine(weights):
    exported = export(weights, model="tests.support.custom_nets:OneProbability", threshold=0.9, **SCALED)
    image = np.zeros((4, 16, 3), np.uint8)
    image[..., 0] = 16 * np.arange(16)
    with opened([exported, build_engine(exported)]) as (tensors, images):
        probabilities = tensors.logits(image)[0]
        assert 0 < (probabilities > 0.9).mean() < (probabilities > 0.5).mean() < 1
        np.testing.assert_array_equal(tensors(image), probabilities > 0.9)
        np.testing.assert_array_equal(images(image), probabilities > 0.9)


def test_a_net_that_clamps_to_0_and_1_is_warned_about(weights, caplog):
    exported = export(weights, model="tests.support.custom_nets:OneClamped", **SCALED)
    assert exported.spec.threshold == 0
    assert "give `threshold=0.5`" in caplog.text


def test_a_threshold_for_a_net_of_several_channels_is_refused(checkpoint_file):
    with pytest.raises(UsageError, match=r"`threshold` is for binary nets"):
        export(checkpoint_file("fcn32s"), threshold=0.5)
