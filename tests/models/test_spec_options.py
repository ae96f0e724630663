import logging
from pathlib import Path

import pytest

from fcn_deploy.artifacts.normalization import TORCHVISION, Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.errors import InputError
from fcn_deploy.models import read_checkpoint
from fcn_deploy.models.spec_options import SpecOptions, make_spec


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
    [("a\nb\nc\n", "got 3 names; expected 5"), ("a,1,2,300\nb\nc\nd\ne\n", "palette")],
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
    "options",
    [SpecOptions(mean=(122.0, 116.0, 104.0)), SpecOptions(std=(200.0, 200.0, 200.0)), SpecOptions(scale=1e-4)],
    ids=["mean", "std", "scale"],
)
def test_a_mean_or_std_that_no_scaled_pixel_can_have_is_refused(checkpoint, options):
    with pytest.raises(InputError, match="does not fit `scale`"):
        make_spec(checkpoint, options)
