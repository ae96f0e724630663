import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_confusion

from fcn_deploy.runtime import Segmenter


@pytest.fixture(scope="module")
def truth(photos, tmp_path_factory):
    """Ground truth of the photos: random blocks of five classes, and 255 where not labelled."""
    folder = tmp_path_factory.mktemp("truth")
    random = np.random.default_rng(3)
    for index, image in enumerate(photos):
        coarse = random.choice([0, 1, 2, 3, 4, 255], (5, 7)).astype(np.uint8)
        size = (image.shape[1], image.shape[0])
        Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(folder / f"photo_{index:02}.png")
    return folder


def test_figures_are_scikit_learns(call, exported, photo_folder, photos, truth):
    arguments = ("evaluate", exported("fcn8s"), "--data", photo_folder, "--labels", truth, "--json")
    report = json.loads(call(*arguments).out)
    with Segmenter(exported("fcn8s")) as segmenter:
        labels = np.concatenate([segmenter(image).ravel() for image in photos])
    wanted = np.concatenate([np.asarray(Image.open(path)).ravel() for path in sorted(truth.iterdir())])
    counted = wanted != 255
    matrix = sklearn_confusion(wanted[counted], labels[counted], labels=range(5))
    assert report["confusion"] == matrix.tolist()
    assert report["pixel_accuracy"] == pytest.approx(100 * np.trace(matrix) / matrix.sum())
    assert report["ignore_index"] == 255
    assert report["images"] == 10
    assert set(report["iou"]) == {f"class_{index}" for index in range(5)}


def test_a_reference_adds_agreement_and_the_drop_with_its_interval(
    call, exported, checkpoint_file, photo_folder, truth
):
    arguments = ("evaluate", exported("fcn8s"), "--data", photo_folder, "--labels", truth)
    reference = ("--reference", f"pytorch:{checkpoint_file('fcn8s')}")
    report = json.loads(call(*arguments, *reference, "--json").out)["reference"]
    assert report["agreement"] == pytest.approx(1, abs=1e-3)
    assert report["agreement_low"] <= report["agreement"] <= report["agreement_high"]
    assert report["miou_drop"]["low"] <= report["miou_drop"]["points"] <= report["miou_drop"]["high"]
    said = call(*arguments, *reference).out
    assert said.count("(95% interval ") == 2
    assert "frequency-weighted IoU" in said


def test_batches_change_no_figure(call, exported, checkpoint_file, photo_folder, truth, tmp_path):
    """In the folder no two neighbours are of a size; here they are, in runs of one to four."""
    for folder, suffix in ((photo_folder, ""), (truth, ".truth")):
        (tmp_path / f"data{suffix}").mkdir()
        for path in folder.iterdir():
            index = int(path.stem.removeprefix("photo_"))
            for copy in range(1 + index % 4):
                (tmp_path / f"data{suffix}" / f"{path.stem}_{copy}.png").write_bytes(path.read_bytes())
    arguments = ("evaluate", exported("fcn8s"), "--data", tmp_path / "data", "--labels", tmp_path / "data.truth")
    reference = ("--reference", f"pytorch:{checkpoint_file('fcn8s')}", "--json")
    one_by_one, together = (json.loads(call(*arguments, *reference, *batch).out) for batch in ((), ("--batch", 3)))
    assert one_by_one == together
    assert one_by_one["images"] == 23
    call(*arguments, "--batch", 0, code=2)


def test_a_checkpoint_can_be_evaluated_by_itself(call, checkpoint_file, photo_folder, truth):
    name = f"pytorch:{checkpoint_file('fcn8s')}"
    said = call("evaluate", name, "--data", photo_folder, "--labels", truth, "--max-images", 2)
    assert "on 2 images" in said.out


def test_missing_labels_are_listed(call, exported, photo_folder, truth, tmp_path):
    (tmp_path / "photo_00.png").write_bytes((truth / "photo_00.png").read_bytes())
    said = call("evaluate", exported("fcn8s"), "--data", photo_folder, "--labels", tmp_path, code=6)
    assert "photo_01.png, photo_02.png" in said.err
    assert "and 4 more" in said.err


def test_a_label_that_is_no_class_is_refused_with_the_flag_that_helps(call, exported, photo_folder, truth):
    arguments = ("evaluate", exported("fcn8s"), "--data", photo_folder, "--labels", truth, "--ignore-index", 4)
    said = call(*arguments, code=6)
    assert "photo_00.png holds values that are not classes; got 255; expected 0..4, or 4" in said.err
    assert "--ignore-index" in said.err


def test_labels_of_another_size_are_refused(call, exported, photo_folder, truth, tmp_path):
    for path in truth.iterdir():
        Image.new("L", (9, 9)).save(tmp_path / path.name)
    said = call("evaluate", exported("fcn8s"), "--data", photo_folder, "--labels", tmp_path, code=6)
    assert "photo_00.png is not of the size of its image" in said.err
    assert "got 9x9; expected 40x56" in said.err
