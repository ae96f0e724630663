import json

import numpy as np
import pytest
from PIL import Image

import fcn_deploy
from fcn_deploy.cli.app import run
from fcn_deploy.data.images import read_image
from fcn_deploy.data.labels import read_labels
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.runtime import Segmenter, colorize


def test_labels_and_overlays_of_a_folder(predict, exported, photo_folder, photos, tmp_path):
    output = tmp_path / "out"
    report = json.loads(predict(photo_folder, "-o", output, "--json").out)
    assert report["images"] == 10
    assert len(report["files"]) == 20
    with Segmenter(exported("fcn8s")) as segmenter:
        for index, image in enumerate(photos):
            saved = np.asarray(Image.open(output / f"photo_{index:02}.labels.png"))
            np.testing.assert_array_equal(saved, segmenter(image))
            assert read_image(output / f"photo_{index:02}.overlay.png").shape == image.shape


def test_files_patterns_and_kinds(predict, exported, photo_folder, tmp_path):
    kinds = ("--save", "color", "--save", "panel", "--save", "labels")
    predict(photo_folder / "photo_03.png", f"{photo_folder}/photo_0[45].png", *kinds, "-o", tmp_path)
    assert len(list(tmp_path.iterdir())) == 9
    labels = np.asarray(Image.open(tmp_path / "photo_04.labels.png"))
    with Segmenter(exported("fcn8s")) as segmenter:
        palette = segmenter.spec.palette
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "photo_04.color.png")), colorize(labels, palette))


def test_labels_in_tiles_are_those_of_the_whole(predict, photo_folder, tmp_path):
    for folder, tile in (("whole", ()), ("tiled", ("--tile", "32x64"))):
        predict(photo_folder / "photo_03.png", *tile, "--save", "labels", "-o", tmp_path / folder)
    whole, tiled = (np.asarray(Image.open(tmp_path / folder / "photo_03.labels.png")) for folder in ("whole", "tiled"))
    assert (whole == tiled).mean() > 0.9999


@pytest.mark.parametrize("save", [("color,panel",), ("color", "--save", "panel,color")])
def test_kinds_may_be_a_list(predict, photo_folder, tmp_path, save):
    report = json.loads(predict(photo_folder / "photo_03.png", "--save", *save, "-o", tmp_path, "--json").out)
    assert report["files"] == [str(tmp_path / f"photo_03.{kind}.png") for kind in ("color", "panel")]


@pytest.mark.parametrize("save", ["colour", "labels,", "labels,colour"])
def test_a_kind_that_is_none_is_a_usage_error(predict, photo_folder, tmp_path, save):
    assert (
        "'labels', 'color', 'overlay', 'panel'"
        in predict(photo_folder, "--save", save, "-o", tmp_path / "out", code=2).err
    )
    assert not (tmp_path / "out").exists()


def test_rotated_and_grey_images_are_labelled_as_they_are_seen(predict, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    Image.fromarray(photos[0]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(photos[1]).convert("L").save(tmp_path / "grey.png")
    predict(tmp_path / "turned.jpg", tmp_path / "grey.png", "-o", tmp_path / "out")
    height, width = photos[0].shape[:2]
    assert read_labels(tmp_path / "out" / "turned.labels.png").shape == (width, height)
    assert read_labels(tmp_path / "out" / "grey.labels.png").shape == photos[1].shape[:2]


def test_nothing_is_written_over_an_input(predict, photos, tmp_path):
    for name in ("a.png", "a.labels.png"):
        Image.fromarray(photos[0]).save(tmp_path / name)
    before = (tmp_path / "a.labels.png").read_bytes()
    said = predict(tmp_path, "-o", tmp_path, code=6)
    assert "would replace an input" in said.err
    assert (tmp_path / "a.labels.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_two_images_of_one_name_are_refused(predict, photos, tmp_path):
    for name in ("a.png", "a.bmp"):
        Image.fromarray(photos[0]).save(tmp_path / name)
    assert "same files" in predict(tmp_path, "-o", tmp_path / "out", code=6).err
    assert not (tmp_path / "out").exists()


def test_a_truncated_image_stops_it_and_it_says_how_far_it_got(predict, photos, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "abcd":
        Image.fromarray(photos[0]).save(folder / f"{name}.jpg")
    whole = (folder / "c.jpg").read_bytes()
    (folder / "c.jpg").write_bytes(whole[: len(whole) // 2])
    said = predict(folder, "--save", "labels", "-o", output, code=6).err
    assert "2 of 4 images done" in said
    assert "c.jpg is damaged" in said
    assert "truncated" in said
    assert sorted(path.name for path in output.iterdir()) == ["a.labels.png", "b.labels.png"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (InputError("no"), 6)])
def test_what_fails_leaves_no_empty_folder_that_was_not_there(
    predict, photo_folder, tmp_path, monkeypatch, there, error, code
):
    def fail(path, **options):
        raise error

    monkeypatch.setattr("fcn_deploy.workflows.labelled_images.read_image", fail)
    output = tmp_path / "deep" / "out"
    if there:
        output.mkdir(parents=True)
    predict(photo_folder, "-o", output, code=code)
    assert output.exists() == (tmp_path / "deep").exists() == there


def test_a_name_that_matches_nothing_and_a_file_that_is_no_image(predict, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "names no image" in predict(tmp_path / "*.jpg", "-o", tmp_path / "out", code=6).err
    assert "not images; got notes.txt" in predict(tmp_path / "notes.txt", "-o", tmp_path / "out", code=6).err


def test_an_image_above_the_limit_of_pixels_is_refused_with_the_flag(predict, photo_folder, tmp_path):
    said = predict(photo_folder / "photo_00.png", "-o", tmp_path / "out", "--max-pixels", 100, code=6)
    assert "raise --max-pixels" in said.err
    predict(photo_folder / "photo_00.png", "-o", tmp_path / "out", "--max-pixels", 10_000_000)


def test_pictures_of_sub_folders_go_to_the_same_sub_folders(predict, photo_folder, tmp_path):
    images = tmp_path / "images"
    for place in ("a", "b/c"):
        (images / place).mkdir(parents=True)
        (images / place / "same.png").write_bytes((photo_folder / "photo_00.png").read_bytes())
    assert "has no images" in predict(images, "-o", tmp_path / "out", code=6).err
    predict(images, "--recursive", "--save", "labels", "-o", tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a/same.labels.png", "b/c/same.labels.png"]


@pytest.fixture
def mixed(photos, tmp_path):
    """Three images, a truncated one, text that is called an image, a broken link, and notes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcd":
        Image.fromarray(photos[0]).save(folder / f"{name}.jpg")
    whole = (folder / "c.jpg").read_bytes()
    (folder / "c.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "e.png").write_text("certainly no picture")
    (folder / "f.png").symlink_to("nowhere.png")
    (folder / "notes.txt").write_text("hello")
    return folder


def test_bad_files_are_skipped_on_demand_and_listed(predict, mixed, tmp_path):
    output = tmp_path / "out"
    said = predict(mixed, "--save", "labels", "--on-error", "skip", "-o", output, code=6)
    assert f"wrote 3 files for 3 images into {output}; 3 files failed" in said.out
    error = next(line for line in said.err.splitlines() if line.startswith("error: "))
    assert error.startswith("error: 3 of 6 files could not be labelled; got ")
    for name in ("c.jpg", "e.png", "f.png"):
        assert str(mixed / name) in error
    assert sorted(path.name for path in output.iterdir()) == [f"{name}.labels.png" for name in "abd"]


def test_json_lists_the_files_that_failed(predict, mixed, tmp_path):
    said = predict(mixed, mixed / "notes.txt", "--on-error", "skip", "-o", tmp_path / "out", "--json", code=6)
    report = json.loads(said.out)
    assert report["images"] == 3
    assert sorted(each["file"] for each in report["failed"]) == [
        str(mixed / name) for name in ("c.jpg", "e.png", "f.png", "notes.txt")
    ]
    assert all("\n" not in each["error"] and each["file"] in each["error"] for each in report["failed"])


def test_an_image_that_does_not_fit_the_engine_is_skipped_too(tmp_path, checkpoint_file, photos, capsys):
    fixed = tmp_path / "fixed.onnx"
    height, width = photos[0].shape[:2]
    export = ["export", "--weights", checkpoint_file("fcn8s"), "--shape", f"{height}x{width}", "-o", fixed]
    assert run([str(each) for each in export]) == 0
    for name, image in (("a.png", photos[0]), ("b.png", photos[0][:-3])):
        Image.fromarray(image).save(tmp_path / name)
    found = fcn_deploy.predict(fixed, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", on_error="skip")
    assert found.images == 1
    assert [failure.file for failure in found.failed] == [tmp_path / "b.png"]
    with pytest.raises(InputError, match="1 of 2 files could not be labelled"):
        found.require_complete()


def test_nothing_but_bad_files_is_no_crash(predict, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no picture")
    said = predict(tmp_path / "in", "--on-error", "skip", "-o", tmp_path / "out", code=6)
    assert "1 of 1 files could not be labelled" in said.err


def test_what_cannot_be_skipped_stops(predict, photo_folder, tmp_path, monkeypatch):
    skip = ("--on-error", "skip", "-o", tmp_path / "out")
    assert "names no image" in predict(tmp_path / "none.png", *skip, code=6).err

    def full(path, data):
        raise InputError(f"cannot write {path}", got="No space left on device")

    monkeypatch.setattr("fcn_deploy.workflows.labelled_images.write_bytes", full)
    assert "stopped with 0 of 10 images done: cannot write" in predict(photo_folder, *skip, code=6).err


def test_a_file_in_place_of_a_sub_folder_of_the_output_is_named(predict, photo_folder, tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    Image.open(photo_folder / "photo_00.png").save(tmp_path / "images" / "sub" / "photo.png")
    (tmp_path / "sub").write_text("mine")
    said = predict(tmp_path / "images", "--recursive", "--on-error", "skip", "-o", tmp_path, code=6)
    assert f"cannot make the folder {tmp_path / 'sub'}" in said.err
    assert (tmp_path / "sub").read_text() == "mine"


def test_a_run_without_bad_files_is_complete(predict, photo_folder, tmp_path):
    said = predict(photo_folder / "photo_03.png", "--on-error", "skip", "-o", tmp_path / "out", "--json")
    assert json.loads(said.out)["failed"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("every", "max_frames", "batch", "max_pixels") for value in ("2", 1.5, True, 0)),
        *({"save": value} for value in (None, 5, [1], b"labels", [[]], [])),
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_usage_errors(exported, photo_folder, tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"`{name}`"):
        fcn_deploy.predict(exported("fcn8s"), photo_folder, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", [None, 5])
def test_what_is_no_engine_is_a_usage_error(photo_folder, tmp_path, engine):
    with pytest.raises(UsageError, match="bad engine"):
        fcn_deploy.predict(engine, photo_folder, tmp_path / "out")
