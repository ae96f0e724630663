import re

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.labels import TruthReader, read_labels
from fcn_deploy.data.pairing import find_labels
from fcn_deploy.errors import InputError
from tests.support.image_files import INDICES, PALETTE, png_of_bits, save, save_palette

# Reading labels


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
        f"{labels} lacks labels; got none for image_2.png, image_5.png; expected a file of the same name for each"
    )
    with pytest.raises(InputError, match=wanted) as caught:
        find_labels(ImageFolder.open(folder).paths, labels)
    assert caught.value.exit_code == 6
    assert caught.value.fix is None


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


def test_black_is_a_class_if_the_palette_says_so(tmp_path):
    path = _mask(tmp_path / "mask.png", [[(0, 0, 0), (0, 128, 0)]])
    np.testing.assert_array_equal(read_labels(path, ((0, 0, 0), (0, 128, 0)), 255), [[0, 1]])


def test_a_colour_that_no_class_has_is_refused_by_name(tmp_path):
    path = _mask(tmp_path / "mask.png", [[(128, 0, 0), (1, 2, 3)], [(0, 0, 0), (0, 128, 0)]])
    with pytest.raises(InputError, match="got 1,2,3"):
        read_labels(path, COLORS, 255)
    with pytest.raises(InputError, match="got 0,0,0, 1,2,3"):
        read_labels(path, COLORS)


def test_paths_of_labels_may_be_strings(folder, labels):
    (found,) = find_labels([str(folder / "image_2.png")], str(labels))
    assert found == labels / "image_2.png"
    np.testing.assert_array_equal(read_labels(str(found)), read_labels(found))


# Palette images


def test_a_palette_image_is_read_by_colour_if_all_its_colours_are_classes(tmp_path, caplog):
    path = save_palette(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(path, PALETTE[::-1]), 3 - INDICES)
    assert not caplog.records


def test_a_palette_image_with_other_colours_is_read_by_index_with_a_note(tmp_path, caplog):
    path = save_palette(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(path, ((1, 2, 3), *PALETTE[1:])), INDICES)
    np.testing.assert_array_equal(read_labels(path, ((1, 2, 3), *PALETTE[1:])), INDICES)
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}: palette images are read by index: they have colours that no class has"


def test_the_greys_of_an_index_image_are_not_taken_for_colours(tmp_path):
    """Of the default colours 64,64,64 is the 57th."""
    image = Image.fromarray(np.array([[0, 64]], np.uint8), "P")
    image.putpalette([channel for grey in range(256) for channel in (grey, grey, grey)])
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png", default_palette(150)), [[0, 64]])


def test_ignored_indices_of_a_palette_image_stay_so_when_it_is_read_by_colour(tmp_path):
    colours = np.full((256, 3), (224, 224, 192), np.uint8)
    colours[:2] = COLORS[1], COLORS[0]
    image = Image.fromarray(np.array([[0, 1, 255, 254]], np.uint8), "P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png", COLORS, (255, 254)), [[1, 0, 255, 255]])


def test_several_values_are_ignored_and_become_the_first(tmp_path):
    path = save(np.array([[0, 1, 254, 255, 7]], np.uint8), tmp_path / "mask.png")
    reader = TruthReader(2, ignored=(255, 254), label_map={7: 254, 1: None})
    np.testing.assert_array_equal(reader.read(path), [[0, 255, 255, 255, 255]])


def test_a_label_map_speaks_before_the_ignored_values(tmp_path):
    path = save(np.array([[0, 255]], np.uint8), tmp_path / "mask.png")
    np.testing.assert_array_equal(TruthReader(2, ignored=(255,), label_map={255: 1}).read(path), [[0, 1]])
    reader = TruthReader(2, label_map={255: None})
    np.testing.assert_array_equal(reader.read(path), [[0, reader.ignore_index]])


def test_two_images_never_share_a_file_of_labels(folder, labels, tmp_path):
    for place in ("a", "b"):
        (tmp_path / "nested" / place).mkdir(parents=True)
        save(np.zeros((4, 6), np.uint8), tmp_path / "nested" / place / "image_2.png")
    images = ImageFolder.open(tmp_path / "nested", recursive=True)
    with pytest.raises(InputError, match="would be the labels of several images"):
        find_labels(images.paths, labels, recursive=True, root=images.root)
    found = find_labels(images.paths, tmp_path / "nested", recursive=True, root=images.root)
    assert found == images.paths


# Ignored values and label maps


def test_a_value_that_the_map_makes_a_class_counts_though_the_class_has_an_ignored_number(tmp_path):
    """ADE20K as people state it: 0 does not count, 1 to C are the classes, the first of which is 0."""
    path = save(np.array([[0, 1, 2, 3]], np.uint8), tmp_path / "mask.png")
    reader = TruthReader(3, ignored=(0,), label_map={1: 0, 2: 1, 3: 2})
    np.testing.assert_array_equal(reader.read(path), [[255, 0, 1, 2]])
    assert reader.ignore_index == 255


@pytest.mark.parametrize(("ignored", "wanted"), [((0,), 255), ((0, 7), 7), ((1, 255, 254), 255), ((), None)])
def test_what_does_not_count_is_never_the_number_of_a_class(ignored, wanted):
    assert TruthReader(3, ignored=ignored).ignore_index == wanted
    assert TruthReader(300, ignored=ignored).ignore_index == (None if wanted is None else -1)


def test_ignored_values_are_counted_as_the_file_has_them(tmp_path):
    path = save(np.array([[0, 254, 255, 255, 7, 1]], np.uint8), tmp_path / "mask.png")
    reader = TruthReader(2, ignored=(255, 254), label_map={7: None})
    labels, ignored = reader.read_counted(path)
    np.testing.assert_array_equal(labels, [[0, 255, 255, 255, 255, 1]])
    assert ignored == {255: 2, 254: 1, 7: 1}


def test_negative_values_are_counted_too(tmp_path):
    path = save(np.array([[-1, 0, -1, 70000]], np.int32), tmp_path / "mask.tiff")
    labels, ignored = TruthReader(1, ignored=(-1, 70000)).read_counted(path)
    np.testing.assert_array_equal(labels, [[-1, 0, -1, -1]])
    assert ignored == {-1: 2, 70000: 1}


# PASCAL VOC

VOC = np.array(default_palette(256), np.uint8)
BORDER = np.array([[0, 1, 255], [2, 255, 1]], np.uint8)


def test_the_border_of_voc_is_ignored_in_a_colour_mask(tmp_path):
    path = save(VOC[BORDER], tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(path, default_palette(3), 255), BORDER)
    with pytest.raises(InputError, match="got 224,224,192"):
        read_labels(path, default_palette(3), 254)


@pytest.mark.parametrize("form", ["png", "gif"])
def test_the_border_of_voc_is_ignored_at_any_place_of_a_palette(tmp_path, form):
    """A program that stores only the colours in use gives the border an index that may be a class."""
    order = [2, 255, 0, 1]
    image = Image.fromarray(np.vectorize(order.index)(BORDER).astype(np.uint8), "P")
    image.putpalette(VOC[order].tobytes())
    image.save(tmp_path / f"mask.{form}")
    np.testing.assert_array_equal(read_labels(tmp_path / f"mask.{form}", default_palette(4), 255), BORDER)


def test_an_ignored_index_stays_so_where_the_palette_is_filled_up_with_black(tmp_path):
    """Black is a class, which does not occur here: the border would be read as that class."""
    image = Image.fromarray(np.array([[1, 255, 2]], np.uint8), "P")
    image.putpalette(VOC[:3].tobytes() + bytes(3 * 253))
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png", default_palette(3), 255), [[1, 255, 2]])


def test_a_note_says_that_a_label_map_is_of_classes_if_a_palette_image_is_read_by_colour(tmp_path, caplog):
    path = save_palette(tmp_path / "mask.png")
    reader = TruthReader(4, PALETTE[::-1], label_map={0: 1})
    np.testing.assert_array_equal(reader.read(path), np.maximum(3 - INDICES, 1))
    assert caplog.messages[0].endswith("say something else; `label_map` is of classes, not of indices")


def test_a_note_says_if_a_palette_image_read_by_index_has_colours_of_other_classes(tmp_path, caplog):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette(np.array([VOC[2], VOC[1], (1, 2, 3)], np.uint8).tobytes())
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png", default_palette(3)), [[0, 1, 2]])
    assert "not all of their colours are classes', but some are, of other indices" in caplog.text


# Grey

GREYS = ((0, 0, 0), (128, 128, 128), (255, 255, 255))


def test_greys_are_read_by_colour_if_the_classes_are_greys(tmp_path, caplog):
    path = save(np.array([[0, 128, 255]], np.uint8), tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(path, GREYS, 255), [[0, 1, 2]])
    assert "grey images are read by colour" in caplog.text


def test_greys_are_values_if_not_all_are_classes(tmp_path, caplog):
    path = save(np.array([[0, 1, 2, 255]], np.uint8), tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(path, GREYS, 255), [[0, 1, 2, 255]])
    assert "grey images are read by value" in caplog.text


def test_greys_are_values_if_a_label_map_names_them(tmp_path):
    path = save(np.array([[0, 255]], np.uint8), tmp_path / "mask.png")
    np.testing.assert_array_equal(TruthReader(3, GREYS, (255,), {255: 1}).read(path), [[0, 1]])


def test_greys_beside_coloured_classes_are_colours_only_if_they_cannot_be_values(tmp_path):
    colours = ((128, 128, 128), (128, 0, 0), (1, 1, 1))
    could_be_values = save(np.array([[1, 0]], np.uint8), tmp_path / "values.png")
    np.testing.assert_array_equal(read_labels(could_be_values, colours, 255), [[1, 0]])
    sky_and_void = save(np.array([[128, 0]], np.uint8), tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(sky_and_void, colours, 255), [[0, 255]])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_few_bits_of_grey_are_the_values_of_the_file(tmp_path, bits):
    """Pillow spreads them over 0..255."""
    values = np.arange(12).reshape(3, 4) % 2**bits
    (tmp_path / "mask.png").write_bytes(png_of_bits(values, bits))
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), values)
    (tmp_path / "mask.png").write_bytes(png_of_bits(values, bits, VOC[: 2**bits][::-1]))
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), values)


# Formats


def test_grey_with_an_opaque_alpha_is_read_and_with_transparent_pixels_refused(tmp_path):
    opaque = np.dstack([INDICES, np.full_like(INDICES, 255)])
    np.testing.assert_array_equal(read_labels(save(opaque, tmp_path / "mask.png")), INDICES)
    opaque[0, 0, 1] = 0
    with pytest.raises(InputError, match="got mode LA, grey with transparent pixels"):
        read_labels(save(opaque, tmp_path / "mask.png"))


def test_floats_that_are_integers_are_classes(tmp_path):
    np.testing.assert_array_equal(read_labels(save(INDICES.astype(np.float32), tmp_path / "mask.tiff")), INDICES)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e20])
def test_other_floats_are_refused_with_the_file(tmp_path, value):
    path = save(np.array([[0, value]], np.float32), tmp_path / "mask.tiff")
    with pytest.raises(InputError, match=re.escape(f"{path} holds values that are no integers")):
        read_labels(path)


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("mask.jpg", {}, "a JPEG"),
        ("mask.png", {"format": "JPEG"}, "a JPEG"),
        ("mask.webp", {"quality": 100}, "a WebP with loss"),
        ("mask.webp", {"quality": 100, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}, "a WebP with loss"),
        ("mask.tif", {"compression": "jpeg"}, "a TIFF with JPEG"),
        ("mask.jp2", {"irreversible": True}, "a JPEG 2000 with loss"),
    ],
)
def test_a_format_with_loss_is_refused(tmp_path, name, options, what):
    path = save(VOC[INDICES], tmp_path / name, **options)
    with pytest.raises(InputError, match=re.escape(f"{path} is {what}")):
        read_labels(path, default_palette(4))


@pytest.mark.parametrize(
    ("name", "options"),
    [("mask.webp", {"lossless": True}), ("mask.tif", {"compression": "tiff_lzw"}), ("mask.jp2", {}), ("mask.tga", {})],
)
def test_a_format_without_loss_is_read(tmp_path, name, options):
    path = save(VOC[INDICES], tmp_path / name, **options)
    np.testing.assert_array_equal(read_labels(path, default_palette(4)), INDICES)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n", "a Git-LFS pointer"),
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>404", "a page or document of a server"),
        (b'{"shapes": []}', "JSON"),
    ],
)
def test_a_file_that_is_no_image_is_called_what_it_is(folder, labels, content, what):
    (labels / "image_2.png").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{labels / 'image_2.png'} is not an image; got {what}")):
        find_labels([folder / "image_2.png"], labels)
    with pytest.raises(InputError, match=re.escape(f"{labels / 'image_2.png'} is not an image; got {what}")):
        read_labels(labels / "image_2.png")


@pytest.mark.parametrize("ending", [".json", ".xml", ".txt"])
def test_annotations_of_outlines_are_not_masks_and_the_error_says_so(folder, labels, ending):
    (labels / "image_2.png").unlink()
    (labels / f"image_2{ending}").write_text('{"shapes": []}')
    with pytest.raises(InputError, match=rf"image_2\{ending} is no image: .* drawn into index images"):
        find_labels([folder / "image_2.png"], labels)


def test_a_number_at_the_end_of_a_name_is_never_taken_for_an_ending(folder, labels):
    """Of one image alone every ending is shared; image_2 would be judged by the truth of image_0, or of image_20."""
    (labels / "image_2.png").unlink()
    save(np.zeros((4, 6), np.uint8), labels / "image_20.png")
    with pytest.raises(InputError, match=r"lacks labels; got none for image_2\.png") as caught:
        find_labels([folder / "image_2.png"], labels)
    assert "label_suffix" not in str(caught.value)
    with pytest.raises(InputError, match="lacks labels"):
        find_labels([folder / "image_2.png"], labels, suffix="_0")


def test_one_image_alone_may_have_an_ending(folder, labels):
    (folder / "image_2.png").rename(folder / "town_000001_leftImg8bit.png")
    (labels / "image_2.png").rename(labels / "town_000001_gtFine_labelIds.png")
    images = [folder / "town_000001_leftImg8bit.png"]
    assert find_labels(images, labels, suffix="_gtFine_labelIds") == (labels / "town_000001_gtFine_labelIds.png",)
    with pytest.raises(InputError, match='add `label_suffix="_gtFine_labelIds"`'):
        find_labels(images, labels)
