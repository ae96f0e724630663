import logging
from pathlib import Path

import pytest
import torch

from fcn_deploy.artifacts.normalization import TORCHVISION, Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import CheckpointInfo
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.models import read_checkpoint
from fcn_deploy.models.spec_options import AdoptedNet, SpecOptions, make_spec


@pytest.fixture
def checkpoint(checkpoint_file):
    return read_checkpoint(checkpoint_file("fcn8s"))


def test_a_checkpoint_that_says_nothing_gets_torchvisions_values_and_a_warning(checkpoint, caplog):
    spec = make_spec(checkpoint)
    assert spec.normalization == Normalization(assumed=True)
    assert spec.normalization.mean == TORCHVISION.mean
    assert "assuming scale 0.00392157" in caplog.text
    assert spec.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert spec.palette == default_palette(5)


def test_a_normalisation_that_the_user_gives_is_not_assumed(checkpoint, caplog):
    options = SpecOptions(scale=1.0, mean=(122.7, 116.7, 104.0), std=(1.0, 1.0, 1.0), color="BGR")
    with caplog.at_level(logging.WARNING):
        spec = make_spec(checkpoint, options)
    assert spec.normalization == Normalization("BGR", 1.0, (122.7, 116.7, 104.0), (1.0, 1.0, 1.0))
    assert not caplog.records


def test_a_normalisation_that_the_user_gives_in_part_is_assumed(checkpoint):
    assert make_spec(checkpoint, SpecOptions(scale=1.0)).normalization.assumed


def test_the_spec_in_a_checkpoint_is_used_and_overridden_by_the_options():
    from fcn_deploy.demo import CLASSES, checkpoint_path

    checkpoint = read_checkpoint(checkpoint_path())
    spec = make_spec(checkpoint, SpecOptions(ignore_index=7))
    assert spec.classes == CLASSES
    assert not spec.normalization.assumed
    assert spec.ignore_index == 7
    assert spec.checkpoint == checkpoint.info


@pytest.mark.parametrize("kind", [str, Path])
def test_classes_are_those_of_the_file(checkpoint, tmp_path, kind):
    path = tmp_path / "classes.csv"
    path.write_text('sky,128,128,128\n"pole, sign"\n\nroad,1,2,3\ncar\nbus\n', "utf-8")
    spec = make_spec(checkpoint, SpecOptions(class_names=kind(path)))
    assert spec.classes == ("sky", "pole, sign", "road", "car", "bus")
    assert spec.palette[0] == (128, 128, 128)
    assert spec.palette[1] == default_palette(5)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\nb\nc\n", "got 3 names; expected 5"), ("a,1,2,300\nb\nc\nd\ne\n", "line 1: bad colour")],
)
def test_a_file_of_classes_that_does_not_fit_the_net_is_refused(checkpoint, tmp_path, text, message):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        make_spec(checkpoint, SpecOptions(class_names=path))


def test_another_number_of_classes_is_refused(checkpoint):
    with pytest.raises(InputError, match="got 5; expected 21"):
        make_spec(checkpoint, SpecOptions(num_classes=21))


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        (SpecOptions(scale=1 / 255, mean=(122.0, 116.0, 104.0), std=(1.0, 1.0, 1.0)), "-122", "-103"),
        (SpecOptions(scale=1.0, mean=(72.39, 82.91, 73.16), std=(18310.0, 18310.0, 18310.0)), "-0.004528", "0.009973"),
        (SpecOptions(scale=1e-4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), "0", "0.0255"),
        (SpecOptions(scale=1.0, mean=(-1000.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), "0", "1255"),
    ],
    ids=["mean", "ESPNet's std", "scale", "negative mean"],
)
def test_an_unusual_normalisation_is_taken_with_a_warning_of_what_the_net_will_see(
    checkpoint, caplog, options, low, high
):
    found = make_spec(checkpoint, options).normalization
    assert (found.scale, found.mean, found.std, found.assumed) == (options.scale, options.mean, options.std, False)
    (record,) = caplog.records
    assert f"the net will see values from {low} to {high}" in record.getMessage()


@pytest.mark.parametrize(
    ("preset", "black", "white"),
    [
        ("imagenet", [-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.6400]),
        ("caffe", [-104.00699, -116.66877, -122.67892], [150.99301, 138.33123, 132.32108]),
        ("zero-one", [0, 0, 0], [1, 1, 1]),
        ("minus-one-one", [-1, -1, -1], [1, 1, 1]),
    ],
)
def test_presets_are_the_published_normalisations_and_not_assumed(checkpoint, caplog, preset, black, white):
    found = make_spec(checkpoint, SpecOptions(preset=preset)).normalization
    a, b = found.affine()
    assert b == pytest.approx(black, abs=1e-4)
    assert [255 * one + other for one, other in zip(a, b, strict=True)] == pytest.approx(white, abs=1e-4)
    assert (found.color, found.assumed) == ("BGR" if preset == "caffe" else "RGB", False)
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "imagenet", "color": "BGR"}, "`color` contradicts `normalization`; got bgr with imagenet"),
        ({"preset": "caffe", "scale": 1 / 255}, "`scale` contradicts `normalization`"),
        ({"preset": "zero-one", "std": (0.5, 0.5, 0.5)}, "`std` contradicts.*got 0.5,0.5,0.5 with zero-one"),
        ({"preset": "minus-one-one", "mean": (0.5, 0.5, 0.5)}, "`mean` contradicts"),
        ({"preset": "tf"}, "unknown `normalization`; got 'tf'; expected imagenet or caffe"),
    ],
)
def test_values_that_contradict_a_preset_are_refused(values, words):
    with pytest.raises(UsageError, match=words):
        SpecOptions(**values)


def test_values_that_a_preset_has_may_stand_beside_it():
    SpecOptions(preset="imagenet", scale=0.00392157, mean=(0.485, 0.456, 0.406), color="RGB")


@pytest.mark.parametrize("count", [None, 1, 2])
def test_a_net_of_one_channel_is_a_binary_net_whether_people_count_one_class_or_two(make_net, tmp_path, count):
    torch.save(make_net(32, classes=1).state_dict(), tmp_path / "net.pth")
    spec = make_spec(read_checkpoint(tmp_path / "net.pth"), SpecOptions(num_classes=count))
    assert (spec.num_classes, spec.channels, spec.threshold) == (2, 1, 0)
    assert spec.classes == ("background", "foreground")


def test_a_binary_net_needs_two_names(make_net, tmp_path):
    torch.save(make_net(32, classes=1).state_dict(), tmp_path / "net.pth")
    (tmp_path / "names.csv").write_text("road\n")
    with pytest.raises(InputError, match="got 1 names; expected 2"):
        make_spec(read_checkpoint(tmp_path / "net.pth"), SpecOptions(class_names=tmp_path / "names.csv"))


def test_the_net_of_an_onnx_file_has_what_the_user_states_and_its_smallest_size(caplog):
    net = AdoptedNet("unet", CheckpointInfo("ab" * 32, "onnx"), 1, (8, 8))
    spec = make_spec(net, SpecOptions(preset="zero-one"))
    assert (spec.variant, spec.classes, spec.threshold) == ("unet", ("background", "foreground"), 0)
    assert (spec.min_size, spec.normalization.mean, spec.adopted) == ((8, 8), (0, 0, 0), True)
    assert not caplog.records
    with pytest.raises(InputError, match="the model has another number of classes"):
        make_spec(net, SpecOptions(num_classes=5))
