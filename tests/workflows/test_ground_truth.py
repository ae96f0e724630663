"""Ground truth as people have it: each form gives the right figures, or is refused in one line that names the file."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import fcn_deploy as fd
from fcn_deploy.errors import InputError, UsageError
from tests.support.ground_truth import NORMALIZATION, Perfect, PerfectBinary, blocks, write

_NETS = "tests.support.ground_truth"


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    """The net, the net of red against the rest, and their images."""
    folder = tmp_path_factory.mktemp("perfect")
    nets = {}
    for make in (Perfect, PerfectBinary):
        torch.save(make().state_dict(), folder / "net.pth")
        nets[make.__name__] = fd.export(folder / "net.pth", model=f"{_NETS}:{make.__name__}", **NORMALIZATION)
    return SimpleNamespace(net=nets["Perfect"], binary=nets["PerfectBinary"], images=write(folder / "images", "images"))


def refusal(net, images, labels, error=InputError, **options):
    """Returns the message of what `evaluate` raises, which is one line."""
    with pytest.raises(error) as caught:
        fd.evaluate(net, images, labels, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "form",
    [
        *("index", "colour", "palette", "palette_reordered", "palette_optimised", "gif", "sixteen_bit"),
        "thirty_two_bit",
    ],
)
def test_every_form_of_the_same_truth_is_read_as_such(perfect, tmp_path, form):
    score = fd.evaluate(perfect.net, perfect.images, write(tmp_path / form, form))
    assert score.miou == 100
    assert score.accuracy.confusion.sum() == sum(truth.size for truth in blocks().values())


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("binary_1_bit", {}),
        ("binary_0_1", {}),
        ("binary_0_255", {"label_map": "255=1"}),
        ("binary_0_255", {"label_map": "255=class_1"}),
        ("binary_0_255", {"label_map": {255: "class_1"}}),
        ("index", {"label_map": "2=0"}),
    ],
)
def test_masks_of_an_object_are_read_as_background_and_object(perfect, tmp_path, form, options):
    score = fd.evaluate(perfect.binary, perfect.images, write(tmp_path / form, form), **options)
    assert score.miou == 100
    red = sum((truth == 1).sum() for truth in blocks().values())
    assert score.accuracy.confusion[1, 1] == red


@pytest.mark.parametrize("form", ["shifted_by_one", "shifted_with_void"])
def test_classes_that_count_from_one_propose_the_map_that_reads_them(perfect, tmp_path, form):
    labels = write(tmp_path / form, form)
    message = refusal(perfect.net, perfect.images, labels)
    assert str(labels / "f0.png") in message
    proposed = re.search('`label_map="([^"]+)"`', message)[1]
    assert fd.evaluate(perfect.net, perfect.images, labels, label_map=proposed).miou == 100


def test_truth_of_another_size_names_its_file_and_its_image(perfect, tmp_path):
    labels = write(tmp_path / "labels", "one_of_another_size")
    message = refusal(perfect.net, perfect.images, labels)
    assert str(labels / "f3.png") in message
    assert str(perfect.images / "f3.png") in message
    assert "got 24x32; expected 48x64" in message


def test_a_value_that_is_not_a_class_names_its_file(perfect, tmp_path):
    labels = write(tmp_path / "labels", "one_stray_value")
    message = refusal(perfect.net, perfect.images, labels)
    assert f"{labels / 'f4.png'} holds a value that is not a class; got 7; expected 0..2, or 255" in message
    assert fd.evaluate(perfect.net, perfect.images, labels, ignore_index=(7, 255)).miou == 100
    score = fd.evaluate(perfect.net, perfect.images, labels, label_map="7=ignore")
    assert score.miou == 100
    assert score.accuracy.confusion.sum() == 6 * 48 * 64 - 1


def test_instance_ids_are_counted_not_listed(perfect, tmp_path):
    labels = write(tmp_path / "labels", "instance_ids")
    message = refusal(perfect.net, perfect.images, labels)
    values = np.unique(np.asarray(Image.open(labels / "f0.png")))
    strays = [str(value) for value in values if value > 2 and value != 255]
    assert str(labels / "f0.png") in message
    assert f"holds {len(strays)} values that are not classes" in message
    assert f"got {', '.join(strays[:8])} and {len(strays) - 8} more" in message
    assert "instance ids" in message
    assert len(message) < 500


def test_jpeg_masks_are_refused_by_name(perfect, tmp_path):
    labels = write(tmp_path / "labels", "jpeg")
    message = refusal(perfect.net, perfect.images, labels)
    assert f"{labels / 'f0.jpg'} is a JPEG" in message


def test_names_with_a_suffix_are_paired_by_it_and_the_error_proposes_it(perfect, tmp_path):
    labels = write(tmp_path / "labels", "index", suffix="_gtFine_labelTrainIds")
    write(labels, "colour", suffix="_gtFine_color")
    message = refusal(perfect.net, perfect.images, labels)
    assert '`label_suffix="_gtFine_labelTrainIds"`' in message
    assert fd.evaluate(perfect.net, perfect.images, labels, label_suffix="_gtFine_labelTrainIds").miou == 100


def test_nested_folders_are_searched_when_asked(perfect, tmp_path):
    """As Cityscapes has them: a folder a city, and another ending for images than for truth."""
    for city, numbers in {"ulm": (0, 1, 2), "bonn": (3, 4, 5)}.items():
        for kind, name, made in (("left", "leftImg8bit", "images"), ("fine", "gtFine_labelTrainIds", "index")):
            whole = write(tmp_path / "all", made)
            (tmp_path / kind / city).mkdir(parents=True)
            for number in numbers:
                (whole / f"f{number}.png").rename(tmp_path / kind / city / f"{city}_{number}_{name}.png")
    images, labels = tmp_path / "left", tmp_path / "fine"
    message = refusal(perfect.net, images, labels, label_suffix="_gtFine_labelTrainIds")
    assert "`recursive=True`" in message
    options = {"label_suffix": "_gtFine_labelTrainIds", "recursive": True}
    score = fd.evaluate(perfect.net, images, labels, **options)
    assert (score.images, score.miou) == (6, 100)
    assert '`label_suffix="_gtFine_labelTrainIds"`' in refusal(perfect.net, images, labels, recursive=True)


@pytest.mark.parametrize("form", ["index", "palette_reordered", "sixteen_bit"])
def test_exchanged_folders_are_said(perfect, tmp_path, form):
    labels = write(tmp_path / "labels", form)
    message = refusal(perfect.net, labels, perfect.images)
    assert "images and ground truth are exchanged" in message
    assert "fix: swap `data` and `labels`" in message
    assert str(labels / "f0.png") in message


def test_photos_in_the_place_of_masks_are_said_to_be_exchanged(perfect, tmp_path):
    masks, photos = write(tmp_path / "masks", "colour"), tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for stem in blocks():
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(photos / f"{stem}.png")
    assert "images and ground truth are exchanged" in refusal(perfect.net, masks, photos)
    message = refusal(perfect.net, write(tmp_path / "photos2", "images"), photos)
    assert "images and ground truth are exchanged" in message  # the images of this net could be masks
    for path in (tmp_path / "photos2").iterdir():
        (photos / path.name).replace(path)
    write(photos, "colour")
    Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(photos / "f5.png")
    message = refusal(perfect.net, tmp_path / "photos2", photos)
    assert f"{photos / 'f5.png'} has " in message
    assert "that no class has, as a photo does" in message


def test_a_folder_of_both_is_said_with_the_two_to_name(perfect, tmp_path):
    images, labels = write(tmp_path / "images", "images"), write(tmp_path / "labels", "index")
    message = refusal(perfect.net, tmp_path, labels)
    assert f"name {images}" in message
    assert str(labels) in message
    assert f"name {images}" in refusal(perfect.net, tmp_path, labels, recursive=True)
    assert f"name {labels} with `labels`" in refusal(perfect.net, images, tmp_path)
    assert "in one folder" in refusal(perfect.net, images, images, UsageError)


def test_options_of_labels_are_checked_before_an_engine_is_opened(perfect, tmp_path):
    labels = write(tmp_path / "labels", "index")
    for label_map in ("none.csv", "255", "255=", "1=2=3=", "a=nobody"):
        error = InputError if "=" in label_map and label_map.startswith(("a", "1")) else UsageError
        assert "label_map" in refusal(perfect.net, perfect.images, labels, error, label_map=label_map)


def test_an_image_turned_by_exif_whose_truth_is_not_names_both(perfect, tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    write(labels, "index")
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in sorted(perfect.images.iterdir()):
        with Image.open(path) as image:
            image.save(images / path.name, exif=exif)
    message = refusal(perfect.net, images, labels)
    assert f"the EXIF orientation of {images / 'f0.png'} turns it, and {labels / 'f0.png'} has none" in message
    for path in labels.iterdir():
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    assert fd.evaluate(perfect.net, images, labels).miou == 100


def test_results_name_every_ignored_value_as_the_files_have_it(perfect, tmp_path):
    labels = write(tmp_path / "labels", "index")
    for index, value in enumerate((7, 254, 254)):
        truth = blocks()[f"f{index}"]
        truth[:8] = value
        Image.fromarray(truth).save(labels / f"f{index}.png")
    options = {"ignore_index": [255, 254], "label_map": "7=ignore"}
    for reference in (None, fd.build_engine(perfect.net)):
        score = fd.evaluate(perfect.net, perfect.images, labels, reference=reference, **options)
        assert score.miou == 100
        data = score.to_json()
        assert data["ignore_index"] == 255
        assert data["truth"]["ignore_indices"] == [255, 254]
        assert data["truth"]["ignored_values"] == [7, 254]
        assert data["truth"]["ignored"] == pytest.approx(3 * 8 / (6 * 48))


def test_a_class_may_be_ignored(perfect, tmp_path):
    score = fd.evaluate(perfect.net, perfect.images, write(tmp_path / "labels", "index"), ignore_index=(0, 255))
    assert score.truth.absent == ("class_0",)
    assert score.truth.ignored_values == (0,)
    assert not score.accuracy.confusion[0].any()


@pytest.mark.parametrize("value", ["255", [], [2.5], "all", [None]])
def test_what_is_no_value_to_ignore_is_a_usage_error(perfect, value):
    with pytest.raises(UsageError, match="bad `ignore_index`"):
        fd.evaluate(perfect.net, perfect.images, perfect.images, ignore_index=value)


def test_a_budget_on_truth_that_labels_nothing_is_an_error(perfect, tmp_path):
    labels = write(tmp_path / "labels", "index")
    options = {"data": perfect.images, "labels": labels, "ignore_index": (0, 1, 2)}
    build = {"precision": "int8", "calib_data": perfect.images, "accuracy_budget": "miou_drop<=0.5"}
    with pytest.raises(InputError, match=r"labels no pixel.*got 0 or 1 or 2 everywhere"):
        fd.build_engine(perfect.net, **build, **options)


def test_deploy_and_budgets_read_labels_by_the_same_options(perfect, tmp_path):
    labels = write(tmp_path / "labels", "shifted_by_one", suffix="_mask")
    torch.save(Perfect().state_dict(), tmp_path / "net.pth")
    options = {"data": perfect.images, "labels": labels, "label_map": "1..3=0..2", "label_suffix": "_mask"}
    options["ignore_index"] = (254, 3)  # 3 is a class, because the map says so
    net = {"model": f"{_NETS}:Perfect", **NORMALIZATION, "warmup": 0, "duration": 0, "iterations": 1}
    summary = fd.deploy(tmp_path / "net.pth", perfect.images, tmp_path / "out", **net, **options)
    assert summary.pytorch_miou == 100
    assert (summary.truth.ignore_indices, summary.truth.ignored_values) == ((254, 3), ())
    assert fd.load_exported(tmp_path / "out" / summary.model).spec.ignore_index == 254
    with pytest.raises(UsageError, match="`label_map` needs labels"):
        fd.deploy(tmp_path / "net.pth", perfect.images, tmp_path / "out", **net, label_map="255=1")
    build = {"precision": "int8", "calib_data": perfect.images, "accuracy_budget": "miou_drop<=0.5"}
    assert fd.build_engine(perfect.net, **build, **options).sidecar.precision.requested == "int8"
    with pytest.raises(InputError, match="lacks labels"):
        fd.build_engine(perfect.net, **build, **{**options, "label_suffix": None})
