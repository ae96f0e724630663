import logging
import re

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import InputError
from tests.support.image_files import encoded, save, shown

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


def test_the_content_of_a_file_tells_whether_it_is_an_image_not_its_suffix(folder, pixels, caplog):
    for name in ("a.txt", "b", "c.jpg", "d.PNG", "e.tar.gz"):
        (folder / name).write_bytes(encoded(pixels, "PNG"))
    images = ImageFolder.open(folder)
    assert [path.name for path in images.paths[:5]] == ["a.txt", "b", "c.jpg", "d.PNG", "e.tar.gz"]
    for image in list(images)[:5]:
        np.testing.assert_array_equal(image, pixels)
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.bmp", "a.tiff", "a.webp"])
@pytest.mark.parametrize("content", [b"just text\n", b"", b"\x89PNG\r\n\x1a\n"], ids=["text", "empty", "cut"])
def test_a_file_with_the_suffix_of_an_image_that_is_not_one_is_an_input_error(folder, name, content):
    (folder / name).write_bytes(content)
    got = f"content of an unknown format, {len(content)} bytes" if content else "an empty file"
    wanted = re.escape(f"{folder / name} is not an image; got {got}; fix: remove or replace it")
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


def test_a_path_that_is_not_a_folder_is_an_input_error(folder):
    for path in (folder / "none", folder / "image_0.png"):
        with pytest.raises(InputError, match=re.escape(f"{path} is not a folder; expected a folder of images")):
            ImageFolder.open(path)


def test_a_folder_without_paths_is_an_input_error():
    with pytest.raises(InputError, match="no images"):
        ImageFolder(())


@pytest.mark.parametrize(
    ("most", "wanted"),
    [(1, [0]), (2, [0, 30]), (3, [0, 20, 40]), (7, [0, 10, 20, 30, 40, 50, 60]), (100, [0, 10, 20, 30, 40, 50, 60])],
)
def test_the_most_images_asked_for_are_spread_evenly(folder, most, wanted):
    assert shown(ImageFolder.open(folder, max_images=most)) == wanted


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_a_sample_is_spread_like_the_most_images_asked_for(folder, count):
    everything = ImageFolder.open(folder)
    assert everything.spread(count).paths == ImageFolder.open(folder, max_images=count).paths


@pytest.mark.parametrize("most", [0, -1])
def test_no_images_asked_for_is_an_input_error(folder, most):
    with pytest.raises(InputError):
        ImageFolder.open(folder, max_images=most)


def test_images_are_resized_when_asked(folder):
    images = ImageFolder.open(folder, size=(8, 20))
    assert {image.shape for image in images} == {(8, 20, 3)}
    assert shown(images) == [0, 10, 20, 30, 40, 50, 60]


def test_a_folder_may_be_named_by_a_string(folder):
    assert ImageFolder.open(str(folder)) == ImageFolder.open(folder)


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
        InputError, match=f"too few images to hold one out.*; got {count}; expected 5 or more; fix: .*`data`"
    ):
        images.every_fifth()


# Folders in folders


def test_sub_folders_are_searched_when_asked(folder, pixels):
    for place in ("a", "b/c", ".hidden"):
        (folder / place).mkdir(parents=True)
        save(pixels, folder / place / "image.png")
    (folder / "b" / "back").symlink_to(folder)
    names = [str(path.relative_to(folder)) for path in ImageFolder.open(folder, recursive=True).paths]
    assert names == ["a/image.png", "b/c/image.png", *(f"image_{index}.png" for index in range(7))]
    assert len(ImageFolder.open(folder)) == 7


def test_folders_that_are_not_searched_are_listed_with_the_option(tmp_path, pixels):
    (tmp_path / "city").mkdir()
    save(pixels, tmp_path / "city" / "image.png")
    with pytest.raises(InputError, match=r"not searched: city; .*`recursive=True`"):
        ImageFolder.open(tmp_path)


@pytest.mark.parametrize("names", [("images", "labels"), ("JPEGImages", "SegmentationClass"), ("img", "masks")])
def test_a_folder_of_images_and_labels_is_recognised(tmp_path, pixels, names):
    for name in names:
        (tmp_path / name).mkdir()
        save(pixels, tmp_path / name / "image.png")
    for recursive in (False, True):
        with pytest.raises(InputError, match=re.escape(f"name {tmp_path / names[0]}; the ground truth")):
            ImageFolder.open(tmp_path, recursive=recursive)


def test_images_are_named_as_seen_from_the_folder_that_was_searched(tmp_path):
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert ImageFolder.open(tmp_path, recursive=True).names == ("a/1.png", "b/1.png")
    assert ImageFolder.open(tmp_path / "a").names == ("1.png",)
