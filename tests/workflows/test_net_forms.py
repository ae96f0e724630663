"""Nets that return several tensors or coarse logits, or take no small images: export, engines, PyTorch as reference."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.runtime import Segmenter
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.evaluating import evaluate
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.predicting import predict
from fcn_deploy.workflows.references import NetCode, opened
from fcn_deploy.workflows.verifying import verify
from tests.support import custom_nets

NETS = {
    custom_nets.Heads: {"logits": 0},
    custom_nets.Coarse: {"resize_logits": "nearest"},
    custom_nets.PaddedSkip: {"size_divisor": "auto"},
    custom_nets.HidesModules: {},
    custom_nets.Unpooling: {},
}
SMALLEST = {"PaddedSkip": [4, 4], "Unpooling": [2, 2]}


@pytest.fixture(scope="module", params=NETS, ids=lambda kind: kind.__name__)
def net(request, tmp_path_factory):
    """The name of a net, its weights, and the engine built from them."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    torch.save(custom_nets.trained(request.param()).state_dict(), folder / "net.pth")
    name = f"tests.support.custom_nets:{request.param.__name__}"
    exported = export(folder / "net.pth", model=name, normalization="zero-one", **NETS[request.param])
    engine = folder / "net.onnx"
    build_engine(exported, output=engine)
    return name, folder / "net.pth", engine


def test_an_engine_gives_the_labels_of_the_net_in_pytorch(net, photo_folder):
    name, weights, engine = net
    check = verify(engine, data=photo_folder, weights=weights, model=name, max_images=3)
    assert check.agreement >= 0.9999
    assert check.parity.only_label is None


def test_a_reference_of_other_outputs_is_refused(net, photo_folder):
    name, weights, engine = net
    for other in ({"logits": "1"}, {"resize_logits": "bilinear"}):
        with pytest.raises(UsageError, match="made from other outputs of the net"):
            verify(engine, data=photo_folder, weights=weights, model=name, **other)


def test_the_spec_says_what_the_reference_needs(net):
    name, _, engine = net
    spec = json.loads(engine.with_name("net.onnx.json").read_text())["spec"]
    kind = name.partition(":")[2]
    assert spec.get("outputs") == {
        "Heads": {"logits": "0", "resize": None},
        "Coarse": {"logits": None, "resize": "nearest"},
    }.get(kind)
    assert spec.get("min_size") == SMALLEST.get(kind)
    assert spec.get("requires") == (["min_size"] if kind in SMALLEST else None)
    assert "padding" not in spec


def test_an_image_below_the_smallest_size_is_refused(net, tmp_path):
    name, weights, engine = net
    if "PaddedSkip" not in name:
        pytest.skip("takes every image")
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / "small.png")
    with opened([engine, f"pytorch:{weights}"], code=NetCode(name)) as segmenters:
        for segmenter in segmenters:
            with pytest.raises(InputError, match="smaller than the net takes; got 3x5; expected at least 4x4"):
                segmenter(np.zeros((3, 5, 3), np.uint8))
            assert segmenter(np.zeros((4, 4, 3), np.uint8)).shape == (4, 4)
    with pytest.raises(InputError, match="smaller than the net takes"):
        predict(engine, tmp_path / "small.png", tmp_path / "out")
    small = r"small\.png is smaller than the net takes; got 3x5; expected at least 4x4"
    with pytest.raises(InputError, match=small):
        verify(engine, data=tmp_path, weights=weights, model=name)
    with pytest.raises(InputError, match=small):
        evaluate(engine, tmp_path, labels_of(tmp_path))
    for index in range(5):
        shutil.copy(tmp_path / "small.png", tmp_path / f"small{index}.png")
    before = {*tmp_path.iterdir()}
    with pytest.raises(InputError, match="is smaller than the net takes"):
        deploy(weights, tmp_path, tmp_path / "deployed", model=name, int8=True)
    assert {*tmp_path.iterdir()} == before


def labels_of(folder):
    """A folder of ground truth beside another, all of class 0."""
    labels = folder.parent / f"{folder.name}_labels"
    labels.mkdir()
    for path in folder.glob("*.png"):
        Image.fromarray(np.zeros((3, 5), np.uint8)).save(labels / path.name)
    return labels


def test_an_export_is_right_at_its_smallest_size_and_above(net):
    name, weights, engine = net
    smallest, _ = SMALLEST.get(name.partition(":")[2], [1, 1])
    sides = range(smallest, smallest + 8)
    random = np.random.default_rng(0)
    with Segmenter(engine) as segmenter, opened([engine, f"pytorch:{weights}"], code=NetCode(name)) as (_, reference):
        for side in sides:
            image = random.integers(0, 256, (side, side + 1, 3), dtype=np.uint8)
            assert np.mean(segmenter(image) == reference(image)) >= 0.95


@pytest.mark.parametrize("option", [{"logits": "0"}, {"resize_logits": "bilinear"}])
def test_options_of_outputs_are_for_custom_nets(checkpoint_file, option):
    with pytest.raises(UsageError, match=r"the published nets return their logits.*got `\w+`"):
        export(checkpoint_file("fcn32s"), **option)


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ({"logits": ""}, "bad `logits`"),
        ({"logits": True}, "bad `logits`"),
        ({"resize_logits": "cubic"}, "bad `resize_logits`"),
        ({"size_divisor": "8"}, "bad `size_divisor`"),
        ({"size_divisor": 1}, "bad `size_divisor`"),
    ],
)
def test_bad_values_are_refused_before_the_net_is_made(tmp_path, option, what):
    with pytest.raises(UsageError, match=what):
        export(tmp_path / "no.pth", model="tests.support.custom_nets:Heads", **option)
