"""Recorded results stand in for PyTorch: the images of a bundle, and no others."""

import numpy as np
import pytest

from fcn_deploy.artifacts.normalization import CAFFE
from fcn_deploy.bundle.expected import Expected
from fcn_deploy.bundle.recorded import RecordedBackend
from fcn_deploy.errors import ClosedError, InputError
from fcn_deploy.evaluation.comparison import compare
from fcn_deploy.runtime import Segmenter
from tests.support.bundles import examples, spec


def test_labels_are_those_that_were_recorded():
    written = examples(3)
    with Segmenter(RecordedBackend(written, spec(), "image"), spec=spec()) as segmenter:
        assert segmenter.io == "image"
        for example in written:
            np.testing.assert_array_equal(segmenter(example.image), example.result)


def test_logits_are_those_that_were_recorded_however_images_are_normalised():
    random, net = np.random.default_rng(0), spec(normalization=CAFFE)
    written = [
        Expected(random.integers(0, 256, (6, 5, 3), np.uint8), random.normal(size=(2, 6, 5)).astype(np.float32))
        for _ in range(2)
    ]
    with Segmenter(RecordedBackend(written, net, "tensor"), spec=net) as segmenter:
        for example in written:
            np.testing.assert_array_equal(segmenter.logits(example.image), example.result)
        found = compare(segmenter, [segmenter], [(each.image, None) for each in written], None)
    assert (found.engines[0].parity.error, found.engines[0].parity.agreement) == (0, 1)


def test_an_image_that_was_not_recorded_is_an_input_error():
    (example,) = examples(1)
    with (
        RecordedBackend([example], spec(), "image") as backend,
        pytest.raises(InputError, match="nothing was recorded"),
    ):
        backend.infer({"image": example.image[np.newaxis] ^ 1})


def test_after_close_every_call_raises():
    backend = RecordedBackend(examples(1), spec(), "image")
    backend.close()
    with pytest.raises(ClosedError):
        backend.infer({"image": examples(1)[0].image[np.newaxis]})
