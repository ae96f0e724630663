"""Images smaller than a net takes are found by their headers, before any net runs, and named."""

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import InputError
from fcn_deploy.workflows.image_sizes import check_image_sizes, check_stated_size


@pytest.fixture
def images(tmp_path):
    for name, size in (("a", (40, 50)), ("b", (30, 50))):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return ImageFolder.open(tmp_path)


def test_the_first_image_that_is_too_small_is_named(images):
    check_image_sizes(images, (30, 50))
    check_image_sizes(None, (30, 50))
    with pytest.raises(InputError, match=r"b\.png is smaller than the net takes; got 30x50; expected at least 31x1"):
        check_image_sizes(images, (31, 1))


def test_an_image_is_as_high_as_it_is_seen(images, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(tmp_path / "b.png").save(tmp_path / "b.png", exif=turned)
    check_image_sizes(images, (40, 30))
    with pytest.raises(InputError, match="got 50x30"):
        check_image_sizes(images, (40, 31))


def test_no_header_is_read_if_every_size_will_do(images, tmp_path):
    (tmp_path / "b.png").unlink()
    check_image_sizes(images, (1, 1))


def test_images_that_are_resized_have_the_size_that_is_stated(images):
    from dataclasses import replace

    check_image_sizes(replace(images, size=(64, 64)), (60, 60))
    with pytest.raises(InputError, match="`calib_size` is smaller than the net takes; got 32x64"):
        check_image_sizes(replace(images, size=(32, 64)), (60, 60))


def test_a_stated_size_is_named_by_its_parameter():
    check_stated_size(None, (60, 60), "tune")
    check_stated_size((60, 60), (60, 60), "tune")
    with pytest.raises(InputError, match="`tune` is smaller than the net takes; got 60x59; expected at least 60x60"):
        check_stated_size((60, 59), (60, 60), "tune")
