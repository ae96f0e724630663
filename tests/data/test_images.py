import logging
import os
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import is_image, open_image, read_image
from fcn_deploy.data.inputs import find_inputs
from fcn_deploy.data.labels import read_labels
from fcn_deploy.errors import InputError
from tests.support.image_files import INDICES, PALETTE, encoded, png_claiming, save, save_palette

# Reading an image


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_an_image_comes_as_it_was_saved(tmp_path, pixels, file_format):
    (tmp_path / "image").write_bytes(encoded(pixels, file_format))
    image = read_image(tmp_path / "image")
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == np.uint8


def test_a_jpeg_comes_nearly_as_it_was_saved(tmp_path):
    smooth = np.linspace(0, 255, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)
    image = read_image(save(smooth, tmp_path / "image.jpg", quality=95))
    assert np.abs(image.astype(int) - smooth).mean() < 4


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda image: image),
        (2, lambda image: image[:, ::-1]),
        (3, lambda image: image[::-1, ::-1]),
        (4, lambda image: image[::-1]),
        (6, lambda image: np.rot90(image, -1)),
        (8, lambda image: np.rot90(image)),
    ],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_the_rotation_a_camera_wrote_is_applied(tmp_path, orientation, turn, file_format):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16, 0] = 255  # red at the top left
    stored[8:, 16:, 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image"
    path.write_bytes(encoded(stored, file_format, exif=exif))
    image = read_image(path)
    wanted = turn(stored)
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).mean() < 10


def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path):
    grey = np.array([[0, 256, 257, 514], [32896, 65278, 65279, 65535]], np.uint16)
    path = save(grey, tmp_path / "grey.png")
    with Image.open(path) as image:
        assert image.mode.startswith("I")
    wanted = np.repeat((grey // 257).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(read_image(path), wanted)
    assert read_image(path).max() == 255


def test_thirty_two_bit_grey_does_not_wrap_around(tmp_path):
    path = save(np.array([[-5, 0, 257, 65535, 70000, 2**31 - 1]], np.int32), tmp_path / "grey.tiff")
    np.testing.assert_array_equal(read_image(path)[0, :, 0], [0, 0, 1, 255, 255, 255])


def test_eight_bit_grey_becomes_three_equal_channels(tmp_path, pixels):
    image = read_image(save(pixels[..., 0], tmp_path / "grey.png"))
    np.testing.assert_array_equal(image, np.repeat(pixels[..., :1], 3, axis=2))


def test_black_and_white_becomes_0_and_255(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1").save(path)
    np.testing.assert_array_equal(read_image(path)[0, :, 1], [0, 255, 0])


def test_alpha_is_dropped_not_blended(tmp_path, pixels):
    alpha = np.random.default_rng(1).integers(0, 256, (*pixels.shape[:2], 1), dtype=np.uint8)
    path = save(np.concatenate([pixels, alpha], axis=2), tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(path), pixels)
    path = save(np.concatenate([pixels[..., :1], alpha], axis=2), tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(path), np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    "options", [{}, {"transparency": 1}, {"transparency": bytes([0, 128, 255, 255])}], ids=["plain", "one", "several"]
)
def test_a_palette_is_expanded_whatever_is_transparent(tmp_path, options):
    path = save_palette(tmp_path / "image.png", **options)
    np.testing.assert_array_equal(read_image(path), np.array(PALETTE, np.uint8)[INDICES])


def test_cmyk_becomes_rgb(tmp_path):
    path = tmp_path / "image.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path)
    assert (np.abs(read_image(path).astype(int) - [255, 0, 0]) < 10).all()


def test_float_pixels_are_refused(tmp_path):
    path = save(np.zeros((2, 2), np.float32), tmp_path / "depth.tiff")
    with pytest.raises(InputError, match=re.escape(f"{path} has float pixels; expected 8 or 16 bits")):
        read_image(path)


def test_an_image_is_resized_bilinearly(tmp_path, pixels):
    path = save(pixels, tmp_path / "image.png")
    wanted = np.asarray(Image.fromarray(pixels).resize((21, 5), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read_image(path, (5, 21)), wanted)
    np.testing.assert_array_equal(read_image(path, pixels.shape[:2]), pixels)


def test_an_image_may_be_named_by_a_string(tmp_path, pixels):
    path = save(pixels, tmp_path / "image.png")
    assert is_image(str(path))
    np.testing.assert_array_equal(read_image(str(path)), pixels)


# Damage


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_an_input_error(tmp_path, file_format, share):
    data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), file_format)
    path = tmp_path / f"image.{file_format.lower()}"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=re.escape(f"{path} is damaged")) as caught:
        read_image(path)
    assert caught.value.exit_code == 6
    with pytest.raises(InputError):
        list(ImageFolder.open(tmp_path))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP"])
def test_damage_is_an_input_error_or_another_image(tmp_path, pixels, monkeypatch, file_format):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # a damaged header must not cost a gigabyte here
    data = encoded(pixels, file_format)
    path = tmp_path / "image.png"
    change = st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(data)), st.lists(change, max_size=4))
    @example(0, [])
    @example(3, [])
    @example(len(data) - 1, [])
    def check(length, changes):
        content = bytearray(data)
        for where, value in changes:
            content[where] = value
        path.write_bytes(content[:length])
        for read in (lambda: read_image(path), lambda: next(iter(ImageFolder.open(tmp_path)))):
            try:
                image = read()
            except InputError as error:
                assert str(path) in str(error)  # noqa: PT017
            else:
                assert image.dtype == np.uint8
                assert image.ndim == 3

    check()


def test_a_file_that_would_fill_the_memory_is_an_input_error(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(40_000, 40_000))
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_image(path)
    with pytest.raises(InputError, match=re.escape(str(path))):
        ImageFolder.open(tmp_path)


def test_a_file_that_is_not_an_image_is_an_input_error(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("text")
    for read in (read_image, read_labels):
        with pytest.raises(InputError, match=re.escape(f"{path} is not an image; got content of an unknown format")):
            read(path)


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_a_missing_file_is_an_input_error(tmp_path, read):
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "none.png"))) as caught:
        read(tmp_path / "none.png")
    assert "No such file" in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_input_error(folder):
    (folder / "image_3.png").chmod(0)
    with pytest.raises(InputError, match=r"image_3\.png; got Permission denied"):
        ImageFolder.open(folder)


def test_an_image_never_starts_a_program(tmp_path, monkeypatch):
    """EPS goes to Ghostscript in Pillow, by its content, whatever the file is called."""

    def started(*arguments, **options):
        pytest.fail("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("subprocess.check_call", started)
    Image.new("RGB", (4, 3)).save(tmp_path / "drawing.eps")
    path = (tmp_path / "drawing.eps").rename(tmp_path / "drawing.png")
    for read in (read_image, is_image, open_image):
        with pytest.raises(InputError, match="is not an image"):
            read(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm", ".jp2", ".tga"])
def test_the_usual_formats_are_read(tmp_path, suffix):
    Image.new("RGB", (16, 12), (200, 10, 10)).save(tmp_path / f"image{suffix}")
    assert read_image(tmp_path / f"image{suffix}").shape == (12, 16, 3)


# What is read with a warning, or behind a limit


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".webp", ".png"])
def test_of_several_pages_or_frames_the_first_is_read_with_one_warning(tmp_path, caplog, suffix):
    frames = [Image.new("RGB", (16, 12), color) for color in ((200, 10, 10), (10, 200, 10), (10, 10, 200))]
    path = tmp_path / f"film{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for _ in range(2):
        assert np.abs(read_image(path)[0, 0].astype(int) - (200, 10, 10)).max() < 20
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has 3 pages or frames: only the first is read"
    ]


@pytest.mark.parametrize(
    ("highest", "warned"), [(255, True), (1023, True), (4095, True), (4096, False), (65535, False)]
)
def test_twelve_bits_in_sixteen_are_warned_about(tmp_path, caplog, highest, warned):
    path = save(np.array([[0, 17, highest]], np.uint16), tmp_path / "grey.png")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_image(path)[0, :, 0], np.array([0, 17, highest]) // 257)
    assert [f"values end at {highest}" in record.getMessage() for record in caplog.records] == [True] * warned


def test_a_large_image_is_one_line_that_names_the_way_past_the_limit(tmp_path, pixels, monkeypatch):
    path = save(pixels, tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for read in (read_image, is_image, ImageFolder.open, find_inputs):
        with pytest.raises(InputError, match=r"large\.png has too many pixels; .*at most 100 pixels.*`max_pixels`"):
            read(tmp_path if read == ImageFolder.open else path)
    np.testing.assert_array_equal(read_image(path, max_pixels=126), pixels)
    assert tuple(find_inputs(path, max_pixels=126).images) == (path,)
    assert Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(InputError, match=r"got 126 pixels, 9x14; expected at most 125; fix: raise `max_pixels`"):
        read_image(path, max_pixels=125)


@pytest.mark.parametrize("target", ["gone.png", "link.png"])
def test_a_broken_link_is_named_with_its_target(tmp_path, pixels, target):
    save(pixels, tmp_path / "image.png")
    link = tmp_path / "link.png"
    link.symlink_to(target)
    message = re.escape(f"{link} is a broken symbolic link; got a link to {target}")
    for read in (read_image, is_image, find_inputs):
        with pytest.raises(InputError, match=message):
            read(link)
    with pytest.raises(InputError, match=message):
        ImageFolder.open(tmp_path)
