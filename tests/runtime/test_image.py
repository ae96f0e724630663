import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcn_deploy.artifacts.normalization import TORCHVISION, Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.errors import InputError
from fcn_deploy.runtime import colorize, normalize, overlay
from fcn_deploy.runtime.image import check_images

CAFFE = Normalization("BGR", 1.0, (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))
UNEVEN = Normalization("BGR", 0.5, (1.0, 20.0, 90.0), (0.25, 2.0, 64.0))
PALETTE = ((10, 20, 30), (200, 0, 100), (255, 255, 255))
NORMALIZATIONS = pytest.mark.parametrize("normalization", [TORCHVISION, CAFFE, UNEVEN], ids=["rgb", "caffe", "uneven"])


def formula(images, normalization):
    channels = images.astype(np.float64) if normalization.color == "RGB" else images[..., ::-1].astype(np.float64)
    scaled = (channels * normalization.scale - normalization.mean) / normalization.std
    return scaled.transpose(0, 3, 1, 2)


# normalize


@NORMALIZATIONS
def test_normalising_is_the_formula_in_the_nets_channel_order(photos, normalization):
    for photo in photos[:4]:
        images = np.stack([photo, photo[::-1]])
        wanted = formula(images, normalization)
        np.testing.assert_allclose(normalize(images, normalization), wanted, atol=1e-6 * np.abs(wanted).max())


@NORMALIZATIONS
def test_every_value_of_a_pixel_is_normalised_exactly(normalization):
    images = np.repeat(np.arange(256, dtype=np.uint8)[np.newaxis, :, np.newaxis, np.newaxis], 3, axis=3)
    wanted = formula(images, normalization)
    np.testing.assert_allclose(normalize(images, normalization), wanted, atol=1e-6 * np.abs(wanted).max())


def test_a_pixel_of_known_values_is_normalised_to_known_values():
    pixel = np.array([[[[10, 20, 30]]]], np.uint8)
    np.testing.assert_allclose(normalize(pixel, CAFFE).ravel(), [30 - 104.00699, 20 - 116.66877, 10 - 122.67892])
    wanted = [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(normalize(pixel, TORCHVISION).ravel(), wanted, rtol=1e-6)


def test_normalised_images_are_contiguous_float32_in_channel_order(photos):
    images = np.stack([photos[0]] * 2)[:, ::2]
    result = normalize(images, TORCHVISION)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.shape == (2, 3, *images.shape[1:3])


def test_normalising_does_not_change_the_image(photos):
    image = photos[0][np.newaxis].copy()
    normalize(image, CAFFE)
    np.testing.assert_array_equal(image[0], photos[0])


# check_images


def test_an_image_becomes_a_batch_of_one_without_a_copy(photos):
    batch = check_images(photos[0])
    assert batch.shape == (1, *photos[0].shape)
    assert np.shares_memory(batch, photos[0])
    assert check_images(batch) is batch


def test_a_list_of_images_is_refused_and_the_error_names_batches(photos):
    with pytest.raises(InputError, match=r"got a list; expected a numpy array.*fix: np\.stack") as caught:
        check_images(photos)
    assert isinstance(caught.value, ValueError)


# colorize


def test_labels_take_the_colours_of_their_classes():
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    np.testing.assert_array_equal(
        colorize(labels, PALETTE), [[PALETTE[0], PALETTE[1]], [PALETTE[2], PALETTE[1]]], strict=False
    )
    assert colorize(labels, PALETTE).dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_without_a_colour_become_black(dtype):
    labels = np.array([0, 3, 127], dtype)
    np.testing.assert_array_equal(colorize(labels, PALETTE), [PALETTE[0], (0, 0, 0), (0, 0, 0)])


def test_negative_labels_become_black():
    np.testing.assert_array_equal(colorize(np.array([-1, 0, -3], np.int32), PALETTE), [(0,) * 3, PALETTE[0], (0,) * 3])


@pytest.mark.parametrize("classes", [1, 255, 256])
def test_uint8_labels_have_colours_up_to_256_classes(classes):
    labels = np.arange(classes).astype(np.uint8)
    np.testing.assert_array_equal(colorize(labels, default_palette(classes)), default_palette(classes))


def test_int32_labels_have_colours_past_256_classes():
    labels = np.array([0, 255, 256, 299, 300], np.int32)
    palette = default_palette(300)
    wanted = [palette[0], palette[255], palette[256], palette[299], (0, 0, 0)]
    np.testing.assert_array_equal(colorize(labels, palette), wanted)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(st.sampled_from([np.uint8, np.int32]), hnp.array_shapes(max_dims=3)))
def test_any_labels_can_be_painted(labels):
    painted = colorize(labels, PALETTE)
    assert painted.shape == (*labels.shape, 3)
    for index, color in enumerate(PALETTE):
        assert (painted[labels == index] == color).all()
    assert not painted[(labels < 0) | (labels >= len(PALETTE))].any()


# overlay


def test_an_overlay_mixes_image_and_colours(photos):
    labels = np.zeros(photos[0].shape[:2], np.uint8)
    labels[:10] = 1
    mixed = overlay(photos[0], labels, PALETTE, 0.25)
    assert mixed.dtype == np.uint8
    wanted = 0.75 * photos[0] + 0.25 * colorize(labels, PALETTE)
    assert np.abs(mixed - wanted).max() <= 0.5 + 1e-9


def test_the_opacity_goes_from_image_to_colours(photos):
    labels = np.ones(photos[0].shape[:2], np.int32)
    np.testing.assert_array_equal(overlay(photos[0], labels, PALETTE, 0), photos[0])
    np.testing.assert_array_equal(overlay(photos[0], labels, PALETTE, 1), colorize(labels, PALETTE))


def test_a_batch_can_be_overlaid(photos):
    images = np.stack([photos[0], photos[0][::-1]])
    labels = np.stack([np.zeros(photos[0].shape[:2], np.uint8), np.ones(photos[0].shape[:2], np.uint8)])
    wanted = [overlay(image, own, PALETTE) for image, own in zip(images, labels, strict=True)]
    np.testing.assert_array_equal(overlay(images, labels, PALETTE), wanted)


def test_an_overlay_of_another_size_is_refused(photos):
    height, width, _ = photos[0].shape
    with pytest.raises(InputError, match=rf"differ in size; got \[{height}, {width - 1}\]; expected \[{height}, "):
        overlay(photos[0], np.zeros((height, width - 1), np.uint8), PALETTE)


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_an_opacity_out_of_range_is_refused(photos, opacity):
    with pytest.raises(InputError, match=r"bad `opacity`; got .*expected 0\.\.1"):
        overlay(photos[0], np.zeros(photos[0].shape[:2], np.uint8), PALETTE, opacity)
