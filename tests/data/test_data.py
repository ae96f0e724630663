import io
import logging
import os
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import read_image
from fcn_deploy.data.labels import find_labels, read_labels
from fcn_deploy.errors import InputError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Seven images of one colour each, whose red channel says which it is."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(7):
        save(np.full((4, 6, 3), 10 * index, np.uint8), folder / f"image_{index}.png")
    return folder


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def encoded(array, file_format, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, file_format, **options)
    return file.getvalue()


def png_claiming(width, height):
    """A PNG whose header claims a size and whose data is short."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def shown(images):
    return [int(image[0, 0, 0]) for image in images]


# Listing a folder


def test_images_come_in_the_order_of_their_names(folder):
    save(np.full((4, 6, 3), 99, np.uint8), folder / "image_10.png")
    save(np.full((4, 6, 3), 98, np.uint8), folder / "Image.png")
    images = ImageFolder.open(folder)
    assert [path.name for path in images.paths] == sorted(path.name for path in folder.iterdir())
    assert shown(images) == [98, 0, 10, 99, 20, 30, 40, 50, 60]
    assert len(images) == 9


def test_a_folder_can_be_read_again_and_again(folder):
    images = ImageFolder.open(folder)
    assert shown(images) == shown(images) == [0, 10, 20, 30, 40, 50, 60]


def test_images_are_read_when_asked_for(folder):
    images = iter(ImageFolder.open(folder))
    next(images)
    (folder / "image_1.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"image_1\.png"):
        next(images)


def test_sub_folders_and_hidden_files_are_left_alone(folder, pixels, caplog):
    (folder / "more").mkdir()
    save(pixels, folder / "more" / "image.png")
    (folder / "folder.png").mkdir()
    save(pixels, folder / ".hidden.png")
    (folder / ".DS_Store").write_bytes(b"")
    assert len(ImageFolder.open(folder)) == 7
    assert not caplog.records


def test_content_tells_what_is_an_image_not_the_suffix(folder, pixels, caplog):
    for name in ("a.txt", "b", "c.jpg", "d.PNG", "e.tar.gz"):
        (folder / name).write_bytes(encoded(pixels, "PNG"))
    images = ImageFolder.open(folder)
    assert [path.name for path in images.paths[:5]] == ["a.txt", "b", "c.jpg", "d.PNG", "e.tar.gz"]
    for image in list(images)[:5]:
        np.testing.assert_array_equal(image, pixels)
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.bmp", "a.tiff", "a.webp"])
@pytest.mark.parametrize("content", [b"just text\n", b"", b"\x89PNG\r\n\x1a\n"], ids=["text", "empty", "cut"])
def test_a_file_with_an_images_suffix_that_is_none_is_an_input_error(folder, name, content):
    (folder / name).write_bytes(content)
    wanted = re.escape(f"{folder / name} is not an image; got content that no reader knows, {len(content)} bytes")
    with pytest.raises(InputError, match=wanted) as caught:
        ImageFolder.open(folder)
    assert caught.value.exit_code == 6


def test_other_files_are_left_out_with_a_warning(folder, caplog):
    (folder / "README.txt").write_text("Images of a street.\n")
    with caplog.at_level(logging.WARNING):
        images = ImageFolder.open(folder)
    assert len(images) == 7
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == f"{folder}: not images, left out: README.txt"


def test_many_other_files_are_counted_not_listed(folder, caplog):
    for index in range(8):
        (folder / f"z{index}.md").write_text("text")
    ImageFolder.open(folder)
    assert caplog.records[0].getMessage().endswith("left out: z0.md, z1.md, z2.md, z3.md, z4.md and 3 more")


@pytest.mark.parametrize(
    "content",
    [
        b"P5 of the report\n",
        b"P1\nhello",
        b"GIF89a",
        b"BM and more",
        b"II*\0",
        b"RIFF....WEBP",
        b"%!PS-Adobe",
        b"\xff\xd8",
    ],
)
def test_a_text_that_begins_like_an_image_is_left_out_or_an_input_error(folder, content):
    (folder / "notes.txt").write_bytes(content)
    try:
        names = [path.name for path in ImageFolder.open(folder).paths]
    except InputError as error:
        assert "notes.txt" in str(error)  # noqa: PT017
    else:
        assert len(names) >= 7


@pytest.mark.parametrize("names", [[], ["README.txt", "data.json"]])
def test_a_folder_without_images_is_an_input_error(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("text")
    wanted = re.escape(f"{tmp_path} has no images; got {len(names)} other files; expected at least one")
    with pytest.raises(InputError, match=wanted):
        ImageFolder.open(tmp_path)


def test_what_is_no_folder_is_an_input_error(folder):
    for path in (folder / "none", folder / "image_0.png"):
        with pytest.raises(InputError, match=re.escape(f"{path} is not a folder; expected a folder of images")):
            ImageFolder.open(path)


def test_no_paths_are_an_input_error():
    with pytest.raises(InputError, match="no images"):
        ImageFolder(())


@pytest.mark.parametrize(
    ("most", "wanted"),
    [(1, [0]), (2, [0, 30]), (3, [0, 20, 40]), (7, [0, 10, 20, 30, 40, 50, 60]), (100, [0, 10, 20, 30, 40, 50, 60])],
)
def test_the_most_images_asked_for_are_spread_evenly(folder, most, wanted):
    assert shown(ImageFolder.open(folder, max_images=most)) == wanted


@pytest.mark.parametrize("most", [0, -1])
def test_no_images_asked_for_is_an_input_error(folder, most):
    with pytest.raises(InputError):
        ImageFolder.open(folder, max_images=most)


def test_images_are_resized_when_asked(folder):
    images = ImageFolder.open(folder, size=(8, 20))
    assert {image.shape for image in images} == {(8, 20, 3)}
    assert shown(images) == [0, 10, 20, 30, 40, 50, 60]


# Holding images out


@pytest.mark.parametrize("count", [5, 6, 9, 10, 23])
def test_every_fifth_image_is_held_out(tmp_path, count):
    data = encoded(np.zeros((1, 1, 3), np.uint8), "PNG")
    for index in range(count):
        (tmp_path / f"{index:02}.png").write_bytes(data)
    images = ImageFolder.open(tmp_path, size=(2, 3))
    observed, held_out = images.every_fifth()
    assert not set(observed.paths) & set(held_out.paths)
    assert sorted(observed.paths + held_out.paths) == list(images.paths)
    assert held_out.paths == images.paths[4::5]
    assert len(held_out) == count // 5
    assert list(observed.paths) == sorted(observed.paths)
    assert observed.size == held_out.size == (2, 3)


@pytest.mark.parametrize("count", [1, 4])
def test_fewer_than_five_images_cannot_be_split(folder, count):
    images = ImageFolder(ImageFolder.open(folder).paths[:count])
    with pytest.raises(
        InputError, match=f"too few images to hold one out.*; got {count}; expected 5 or more; fix: .*--da"
    ):
        images.every_fifth()


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


PALETTE = [(10, 20, 30), (200, 0, 100), (255, 255, 255), (0, 128, 0)]
INDICES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4


def save_palette(path, **options):
    image = Image.fromarray(INDICES).convert("P")
    image.putdata(INDICES.ravel().tolist())
    image.putpalette([channel for color in PALETTE for channel in color])
    image.save(path, **options)
    return path


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


def test_what_is_no_image_is_an_input_error(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("text")
    for read in (read_image, read_labels):
        with pytest.raises(InputError, match=re.escape(f"{path} is not an image; got content that no reader knows")):
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


# Labels


def test_the_value_of_a_grey_pixel_is_its_class(tmp_path):
    values = np.array([[0, 1, 11], [20, 254, 255]], np.uint8)
    labels = read_labels(save(values, tmp_path / "labels.png"))
    np.testing.assert_array_equal(labels, values)
    assert labels.dtype == np.int32


@pytest.mark.parametrize("options", [{}, {"transparency": 1}], ids=["plain", "transparent"])
def test_the_palette_index_of_a_pixel_is_its_class(tmp_path, options):
    np.testing.assert_array_equal(read_labels(save_palette(tmp_path / "labels.png", **options)), INDICES)


def test_sixteen_bits_hold_classes_past_255(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    np.testing.assert_array_equal(read_labels(save(values, tmp_path / "labels.png")), values)


def test_one_bit_holds_two_classes(tmp_path):
    Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1").save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png"), [[0, 1, 1]])


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_colour_mask_is_refused(tmp_path, channels):
    path = save(np.zeros((2, 3, channels), np.uint8), tmp_path / "labels.png")
    with pytest.raises(InputError, match=re.escape(f"{path} is not an index image; got mode ")) as caught:
        read_labels(path)
    assert "convert it to indices" in str(caught.value)


def test_truncated_labels_are_an_input_error(tmp_path):
    path = save(np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8), tmp_path / "labels.png")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=re.escape(f"{path} is damaged")):
        read_labels(path)


# Finding labels


@pytest.fixture
def labels(folder, tmp_path):
    """A folder of labels, with some for images that are not there."""
    labels = tmp_path / "labels"
    labels.mkdir()
    for index in range(9):
        save(np.full((4, 6), index, np.uint8), labels / f"image_{index}.png")
    return labels


def test_labels_are_found_by_name_in_the_order_of_the_images(folder, labels):
    paths = ImageFolder.open(folder).paths[::-1]
    found = find_labels(paths, labels)
    assert [read_labels(path).max() for path in found] == [6, 5, 4, 3, 2, 1, 0]
    assert all(path.parent == labels for path in found)


def test_labels_may_have_another_suffix(folder, labels):
    (labels / "image_2.png").rename(labels / "image_2.tiff")
    assert find_labels([folder / "image_2.png"], labels)[0].name == "image_2.tiff"


def test_dots_in_a_name_are_part_of_it(folder, labels):
    (labels / "image_2.png").rename(labels / "clip.0002.png")
    assert find_labels([folder / "clip.0002.jpg"], labels) == (labels / "clip.0002.png",)


def test_missing_labels_are_listed(folder, labels):
    (labels / "image_2.png").unlink()
    (labels / "image_5.png").unlink()
    wanted = re.escape(
        f"{labels} lacks labels; got none for image_2.png, image_5.png; expected a file of the same name"
    )
    with pytest.raises(InputError, match=wanted) as caught:
        find_labels(ImageFolder.open(folder).paths, labels)
    assert caught.value.exit_code == 6


def test_many_missing_labels_are_counted(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"image_3\.png, image_4\.png and 2 more"):
        find_labels(ImageFolder.open(folder).paths, empty)


def test_a_missing_folder_of_labels_is_an_input_error(folder, tmp_path):
    with pytest.raises(InputError, match="is not a folder; expected a folder of index images"):
        find_labels(ImageFolder.open(folder).paths, tmp_path / "none")


def test_another_file_of_the_same_name_does_not_take_the_place_of_labels(folder, labels):
    # As annotation tools leave them: image_2.png beside image_2.json and image_2.txt.
    (labels / "image_2.json").write_text("{}")
    (labels / "image_2.txt").write_text("sky")
    (labels / ".image_2.swp").write_text("")
    assert find_labels([folder / "image_2.png"], labels) == (labels / "image_2.png",)


COLORS = ((128, 0, 0), (0, 128, 0), (10, 20, 30))


def _mask(path, colors, mode="RGB"):
    Image.fromarray(np.array(colors, np.uint8)).convert(mode).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_mask_is_read_by_the_palette_and_black_is_ignored(tmp_path, mode):
    path = _mask(tmp_path / "mask.png", [[(128, 0, 0), (10, 20, 30)], [(0, 0, 0), (0, 128, 0)]], mode)
    np.testing.assert_array_equal(read_labels(path, COLORS, 255), [[0, 2], [255, 1]])


def test_black_is_a_class_where_the_palette_says_so(tmp_path):
    path = _mask(tmp_path / "mask.png", [[(0, 0, 0), (0, 128, 0)]])
    np.testing.assert_array_equal(read_labels(path, ((0, 0, 0), (0, 128, 0)), 255), [[0, 1]])


def test_a_colour_that_is_no_class_is_refused_by_name(tmp_path):
    path = _mask(tmp_path / "mask.png", [[(128, 0, 0), (1, 2, 3)], [(0, 0, 0), (0, 128, 0)]])
    with pytest.raises(InputError, match="got 1,2,3"):
        read_labels(path, COLORS, 255)
    with pytest.raises(InputError, match="got 0,0,0, 1,2,3"):
        read_labels(path, COLORS)
