import io

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.reporting.pictures import KINDS, encode_png, index_image, panel

IMAGE = np.full((20, 30, 3), 100, np.uint8)


def _spec(classes):
    return ModelSpec("fcn8s", 8, 1.0, classes, tuple(f"class {i}" for i in range(classes)), default_palette(classes))


def test_a_panel_holds_image_overlay_and_a_legend_of_what_occurs():
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 20:] = 2
    picture = panel(IMAGE, labels, _spec(4))
    np.testing.assert_array_equal(picture[:20, :30], IMAGE)
    assert not np.array_equal(picture[:20, 30:60], IMAGE)
    legend = {tuple(color) for color in picture[:, 60:].reshape(-1, 3).tolist()}
    palette = default_palette(4)
    assert palette[2] in legend
    assert palette[1] not in legend
    assert palette[3] not in legend


def test_a_long_legend_makes_the_panel_taller():
    labels = np.arange(20 * 30, dtype=np.int64).reshape(20, 30) % 40
    picture = panel(IMAGE, labels.astype(np.uint8), _spec(40))
    assert picture.shape[0] > 40 * 15
    assert (picture[21:, :60] == 255).all()


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (300, np.uint16)])
def test_index_images_hold_every_label(classes, dtype):
    labels = np.full((3, 4), classes - 1, np.int32)
    picture = index_image(IMAGE, labels, _spec(classes))
    assert picture.dtype == dtype
    assert (np.asarray(Image.open(io.BytesIO(encode_png(picture)))) == classes - 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_png(kind):
    picture = KINDS[kind](IMAGE, np.zeros((20, 30), np.uint8), _spec(3))
    assert Image.open(io.BytesIO(encode_png(picture))).format == "PNG"
