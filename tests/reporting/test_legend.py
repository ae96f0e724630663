import numpy as np
import pytest

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.reporting.legend import legend_of_classes, legend_of_shares, padded
from fcn_deploy.reporting.pictures import panel_of_video


def spec_of(classes):
    names = tuple(f"class {index}" for index in range(classes))
    return ModelSpec("fcn8s", 8, 1.0, classes, names, default_palette(classes))


def colors(picture):
    return {tuple(color) for color in picture.reshape(-1, 3).tolist()}


@pytest.mark.parametrize("classes", [1, 8, 32, 33, 150])
def test_the_legend_of_classes_has_the_colour_of_each(classes):
    spec = spec_of(classes) if classes > 1 else spec_of(2)
    picture = legend_of_classes(spec)
    assert set(spec.palette) <= colors(picture)
    assert picture.shape[0] <= 32 * 18 + 16
    np.testing.assert_array_equal(picture, legend_of_classes(spec))


@pytest.mark.parametrize("height", [10, 60, 96, 480])
def test_it_takes_columns_to_fit_the_height_of_the_image(height):
    picture = legend_of_classes(spec_of(21), height)
    assert picture.shape[0] <= max(height, 34)
    assert set(spec_of(21).palette) <= colors(picture)


def test_the_legend_of_shares_has_what_occurs():
    labels = np.zeros((4, 4), np.uint8)
    labels[0] = 2
    found = colors(legend_of_shares(labels, spec_of(4)))
    assert {spec_of(4).palette[0], spec_of(4).palette[2]} <= found
    assert spec_of(4).palette[1] not in found


def test_padding_is_white_below_and_at_the_right():
    picture = padded(np.zeros((2, 3, 3), np.uint8), 4, 5)
    assert picture.shape == (4, 5, 3)
    assert not picture[:2, :3].any()
    assert (picture[2:] == 255).all()
    assert (picture[:, 3:] == 255).all()


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (5, 7)])
def test_the_panel_of_a_video_stands_still_and_is_even(size):
    image = np.full((*size, 3), 100, np.uint8)
    sizes = set()
    for label in range(3):
        picture = panel_of_video(image, np.full(size, label, np.uint8), spec_of(5))
        sizes.add(picture.shape)
        np.testing.assert_array_equal(picture[: size[0], : size[1]], image)
        assert set(spec_of(5).palette) <= colors(picture)
    (shape,) = sizes
    assert shape[0] % 2 == shape[1] % 2 == 0
