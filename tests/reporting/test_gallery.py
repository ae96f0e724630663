import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_deploy.evaluation.comparison import Compared
from fcn_deploy.reporting import gallery
from fcn_deploy.reporting.gallery import (
    BOTH_WRONG,
    DIFFERENT,
    ENGINE_WRONG,
    IGNORED,
    LARGEST,
    MOST,
    PYTORCH_WRONG,
    WorstImages,
    difference_map,
    gallery_of,
    is_small_picture,
)
from tests.support.deployments import SIZE, images, missed, spec, summary


def collected(found, names=None, ignore_index=255):
    names = names or [f"{index}.png" for index in range(len(found))]
    worst = WorstImages(names, ("fp32", "int8"), spec(), ignore_index)
    for each in found:
        worst.add(each)
    return worst.result()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_the_images_with_the_lowest_agreement_are_kept_and_come_first():
    found = collected(images(MOST + 4))
    assert [each.name for each in found["int8"]] == [f"{index}.png" for index in range(MOST + 3, 3, -1)]
    total = SIZE[0] * SIZE[1]
    assert [each.agreement for each in found["int8"]] == pytest.approx([1 - (12 - i) / total for i in range(MOST)])
    assert [each.name for each in found["fp32"]] == [f"{index}.png" for index in range(MOST)]  # all agree
    assert found["fp32"][0].agreement == 1


def test_each_image_has_its_pictures_and_without_labels_no_truth():
    labelled, other = collected(images(1))["int8"][0], collected(images(1, labelled=False))["int8"][0]
    assert [*labelled.pictures] == ["image", "truth", "pytorch", "engine", "difference"]
    assert [*other.pictures] == ["image", "pytorch", "engine", "difference"]
    assert labelled.shape == SIZE


def test_labels_have_the_colours_of_their_classes_and_ignored_truth_is_grey():
    (image,) = images(1)
    shown = collected([image])["int8"][0].pictures
    palette = np.array(spec().palette)
    assert (pixels(shown["pytorch"]) == palette[image.expected]).all()
    assert (pixels(shown["engine"]) == palette[image.found[1]]).all()
    truth = pixels(shown["truth"])
    assert (truth[:-1] == palette[image.truth[:-1]]).all()
    assert (truth[-1] == IGNORED).all()


def test_a_difference_says_who_is_right():
    labels = {
        "pytorch": np.array([[0, 0, 0, 0, 1]]),
        "engine": np.array([[0, 1, 1, 1, 0]]),
        "truth": np.array([[0, 0, 1, 2, 9]]),
    }
    drawn = difference_map(np.zeros((1, 5, 3), np.uint8), labels, 9)[0]
    assert [tuple(color) for color in drawn[1:].tolist()] == [ENGINE_WRONG, PYTORCH_WRONG, BOTH_WRONG, DIFFERENT]
    assert len(set(drawn[0].tolist())) == 1  # grey
    del labels["truth"]
    assert (difference_map(np.zeros((1, 5, 3), np.uint8), labels, None)[0, 1:] == DIFFERENT).all()


@given(st.integers(1, 1500), st.integers(1, 700))
def test_pictures_are_small_and_never_empty(height, width):
    labels = np.zeros((height, width), np.uint8)
    labels[-1, -1] = 2
    worst = WorstImages(["a.png"], ("int8",), spec(), None)
    worst.add(Compared(np.zeros((height, width, 3), np.uint8), None, labels, (labels,)))
    (kept,) = worst.result()["int8"]
    sizes = {pixels(content).shape[:2] for content in kept.pictures.values()}
    assert len(sizes) == 1
    shown = sizes.pop()
    share = min(1, LARGEST / max(height, width))
    assert shown == (max(1, round(height * share)), max(1, round(width * share)))
    assert kept.shape == (height, width)
    assert all(map(is_small_picture, kept.pictures.values()))


def test_labels_are_reduced_to_labels_that_are_there():
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, (LARGEST * 2, 5)).astype(np.uint8)
    worst = WorstImages(["a.png"], ("int8",), spec(), None)
    worst.add(Compared(np.zeros((*labels.shape, 3), np.uint8), None, labels, (labels,)))
    shown = pixels(worst.result()["int8"][0].pictures["engine"])
    assert {tuple(color) for color in shown.reshape(-1, 3).tolist()} <= set(spec().palette)


def test_the_gallery_is_of_the_engine_to_ship_or_of_the_one_that_missed_its_gate():
    kept = collected(images(2))
    found, files = gallery_of(summary(), kept)
    assert found.engine == "fcn8s.int8.onnx"
    assert [image.name for image in found.images] == ["1.png", "0.png"]
    assert set(files) == {file for image in found.images for file in image.pictures.values()}
    assert gallery_of(missed(), kept)[0].engine == "fcn8s.int8.onnx"
    undecided = summary(ship=None)
    assert gallery_of(undecided, kept)[0].engine == "fcn8s.int8.onnx"
    fp32 = replace(summary().ship, engine="fcn8s.fp32.onnx")
    assert gallery_of(summary(ship=fp32), kept)[0].engine == "fcn8s.fp32.onnx"
    assert gallery_of(summary(), {}) == (None, {})


def test_what_is_no_small_picture_is_told_from_what_is(monkeypatch):
    (kept, *_) = collected(images(1))["int8"]
    for content in kept.pictures.values():
        assert is_small_picture(content)
        assert not is_small_picture(content[: len(content) // 2])
    for content in (b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n<script>", b"GIF89a" + bytes(100)):
        assert not is_small_picture(content)
    assert not is_small_picture(gallery.encode_png(np.zeros((LARGEST + 1, 1), np.uint8)))
    bomb = gallery.encode_png(np.zeros((1, 40_000), np.uint8))
    assert not is_small_picture(bomb)
    monkeypatch.setattr(gallery, "_LARGEST_FILE", 10)
    assert not is_small_picture(kept.pictures["image"])
