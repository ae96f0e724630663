import re

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.labels import TruthReader, read_labels
from fcn_deploy.data.pairing import find_labels
from fcn_deploy.errors import InputError
from tests.support.image_files import INDICES, PALETTE, save, save_palette

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
