import re

import numpy as np
import pytest

from fcn_deploy.data.frames import Selection
from fcn_deploy.errors import InputError
from fcn_deploy.progress import Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.workflows.labelled_images import label_images
from fcn_deploy.workflows.labelling import Labelling, Meter


@pytest.fixture
def labelling(exported):
    with Segmenter(exported("fcn8s")) as segmenter:

        def make(batch=1, skipping=False, window=None):
            return Labelling(segmenter, ("labels",), False, batch, Selection(), skipping, Silent(), window)

        yield make


def test_labels_are_those_of_each_image_and_are_measured(labelling):
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), dtype=np.uint8))
    meter = Meter("a")
    assert (meter.note(), meter.speed()) == ("", None)
    run = labelling(batch=3)
    for image, labels in zip(images, run.labels(images, meter), strict=True):
        np.testing.assert_array_equal(labels, run.segmenter(image))
    assert re.fullmatch(r"\d+\.\d frames/s, \d+ ms \(median \d+ ms\)", meter.note())
    speed = meter.speed()
    assert (speed.frames, len(speed.latency.latencies)) == (3, 1)
    assert 0 < speed.latency.median / 1000 <= speed.seconds


@pytest.mark.parametrize("batch", [1, 4])
def test_what_was_read_before_a_bad_image_is_written(labelling, photos, tmp_path, batch):
    from PIL import Image

    for name in "abcd":
        Image.fromarray(photos[0]).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:100])
    targets = {tmp_path / f"{name}.png": [tmp_path / "out" / f"{name}.labels.png"] for name in "abcd"}
    with pytest.raises(InputError, match=r"stopped with 2 of 4 images done: .*c\.png is damaged"):
        label_images(labelling(batch), targets, lambda path, error: None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.labels.png", "b.labels.png"]
    told = []
    made = label_images(labelling(batch, skipping=True), targets, lambda path, error: told.append(path.name))
    assert (made.count, len(made.files), told) == (3, 3, ["c.png"])
    assert made.speed.frames == 3


def test_no_images_have_no_speed(labelling):
    assert label_images(labelling(), {}, lambda path, error: None).speed is None
