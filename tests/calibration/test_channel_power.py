import numpy as np
import pytest

from fcn_deploy.calibration.channel_power import channel_rms
from fcn_deploy.calibration.watched import WatchedModel
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import load_exported


@pytest.fixture(scope="module")
def model(exported):
    return load_exported(exported("fcn8s"))


def test_every_pixel_of_every_image_has_the_same_weight(model, photos):
    images = [photos[0], photos[1][:40, :52]]
    found = channel_rms(model, images, threads=1)
    with WatchedModel(model.copy(), model.spec, ["conv3_3/Relu"], threads=1) as watched:
        values = [watched.run(image)["conv3_3/Relu"] for image in images]
    pixels = np.concatenate([each[0].reshape(each.shape[1], -1) for each in values], axis=1)
    np.testing.assert_allclose(found["conv3_3/Relu"], np.sqrt(np.square(pixels, dtype=np.float64).mean(axis=1)))


def test_no_image_is_an_input_error(model):
    with pytest.raises(InputError, match="no images to balance channels by"):
        channel_rms(model, [])


def test_what_is_no_image_is_an_input_error(model):
    with pytest.raises(InputError):
        channel_rms(model, [np.zeros((4, 4), np.uint8)])
