"""Expected results are read without trust: no pickles, no headers that lie, no archive that grows without bounds."""

import io
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.bundle import expected as module
from fcn_deploy.bundle.expected import (
    MOST_BYTES,
    MOST_IMAGES,
    Expected,
    check_values,
    images_that_fit,
    load_expected,
    samples_of,
    save_expected,
)
from fcn_deploy.errors import ArtifactError, InputError
from tests.support.bundles import examples, spec


def with_logits(count=2):
    random = np.random.default_rng(1)
    shapes = [(5 + index, 7) for index in range(count)]
    return [
        Expected(random.integers(0, 256, (*shape, 3), np.uint8), random.normal(size=(4, *shape)).astype(np.float32))
        for shape in shapes
    ]


@pytest.mark.parametrize("truth", [False, True])
def test_labels_come_back(truth):
    written = examples(3, truth)
    read = load_expected(save_expected(written, "image"), "image", 3)
    for one, other in zip(written, read, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.result, other.result)
        assert (other.truth is None) is not truth
    assert [image.shape for image, _ in samples_of(read)] == [example.image.shape for example in written]


def test_logits_come_back_bit_by_bit():
    written = with_logits()
    for one, other in zip(written, load_expected(save_expected(written, "tensor"), "tensor", 2), strict=True):
        assert other.result.dtype == np.float32
        np.testing.assert_array_equal(one.result, other.result)


@pytest.mark.parametrize(("truth", "dtype"), [([[0, 255]], np.uint8), ([[0, -1]], np.int32), ([[0, 300]], np.int32)])
def test_ground_truth_keeps_its_values(truth, dtype):
    written = Expected(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2), np.uint8), np.array(truth, np.int64))
    (read,) = load_expected(save_expected([written], "image"), "image", 1)
    assert (read.truth.dtype, read.truth.tolist()) == (dtype, truth)


def archive(files, compression=zipfile.ZIP_DEFLATED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return content.getvalue()


def npy(array, **changes):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, **changes)
    return content.getvalue()


IMAGE = npy(np.zeros((2, 3, 3), np.uint8))
LABELS = npy(np.zeros((2, 3), np.uint8))
GOOD = {"image_00.npy": IMAGE, "labels_00.npy": LABELS}


def lying(header):
    """An array whose header says more than there is, as numpy writes headers."""
    return IMAGE.replace(b"(2, 3, 3)", header.ljust(9))


def headed(header):
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header


HUGE = IMAGE.replace(b"(2, 3, 3), }        ", b"(99999999999, 9, 3), }")
assert len(HUGE) == len(IMAGE) + 2

HOSTILE = {
    "no archive": b"PK\3\4" + b"\0" * 60,
    "nothing": b"",
    "a pickle": archive({**GOOD, "labels_00.npy": npy(np.array([[{}] * 3] * 2, object), allow_pickle=True)}),
    "more elements than bytes": archive({**GOOD, "image_00.npy": lying(b"(9, 3, 3)")}),
    "a size that overflows": archive(
        {**GOOD, "image_00.npy": IMAGE.replace(b"(2, 3, 3), }        ", b"(99999999999, 9, 3), }")}
    ),
    "a negative size": archive({**GOOD, "image_00.npy": lying(b"(-2,3,-3)")}),
    "a header that is code": archive({**GOOD, "image_00.npy": IMAGE.replace(b"'descr'", b"exit(1)")}),
    "no header": archive({**GOOD, "image_00.npy": b"\x93NUMPY\1\0"}),
    "a header that does not end": archive({**GOOD, "image_00.npy": IMAGE.replace(b"{'descr'", b"{('desc'")}),
    "a header that is indented": archive({**GOOD, "image_00.npy": headed(b"  x\n y\n  z")}),
    "a header that nests": archive({**GOOD, "image_00.npy": headed(b"-" * 9000 + b"1")}),
    "more axes than an image has": archive({**GOOD, "labels_00.npy": npy(np.zeros((1, 1, 2, 3), np.uint8))}),
    "labels of several images": archive({**GOOD, "labels_00.npy": npy(np.zeros((5, 2, 3), np.uint8))}),
    "text": archive({**GOOD, "image_00.npy": b"text"}),
    "a later format of numpy": archive({**GOOD, "image_00.npy": npy(np.zeros((2, 3, 3), np.uint8), version=(2, 0))}),
    "columns first": archive({**GOOD, "labels_00.npy": npy(np.asfortranarray(np.zeros((2, 3), np.uint8)))}),
    "an image of floats": archive({**GOOD, "image_00.npy": npy(np.zeros((2, 3, 3), np.float32))}),
    "another size": archive({**GOOD, "labels_00.npy": npy(np.zeros((3, 3), np.uint8))}),
    "four channels": archive({**GOOD, "image_00.npy": npy(np.zeros((2, 3, 4), np.uint8))}),
    "no pixels": archive(
        {"image_00.npy": npy(np.zeros((0, 3, 3), np.uint8)), "labels_00.npy": npy(np.zeros((0, 3), np.uint8))}
    ),
    "one missing": archive({"image_00.npy": IMAGE}),
    "one more": archive({**GOOD, "image_01.npy": IMAGE}),
    "logits for labels": archive({"image_00.npy": IMAGE, "logits_00.npy": npy(np.zeros((4, 2, 3), np.float32))}),
    "a path": archive({**GOOD, "../image_01.npy": IMAGE}),
    "a method that is unknown": archive(GOOD).replace(b"\x08\x00", b"\x61\x00"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_malformed_or_means_harm_is_an_artifact_error(kind):
    with pytest.raises(ArtifactError, match="expected results of the bundle"):
        load_expected(HOSTILE[kind], "image", 1)
    assert load_expected(archive(GOOD), "image", 1)


def test_an_archive_that_grows_is_refused_before_it_does(monkeypatch):
    monkeypatch.setattr(module, "_READ_AT_MOST", 1000)
    data = archive({**GOOD, "truth_00.npy": npy(np.zeros((2000, 2000), np.uint8))})
    with pytest.raises(ArtifactError, match="arrays of more than 1000 bytes"):
        load_expected(data, "image", 1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, data in (*GOOD.items(), *GOOD.items()):
            made.writestr(name, data)
    with pytest.raises(ArtifactError, match="two arrays of one name"):
        load_expected(content.getvalue(), "image", 1)


def test_some_images_with_ground_truth_and_some_without_are_refused():
    mixed = [*examples(1, truth=True), examples(2)[1]]
    with pytest.raises(ArtifactError, match="some images of the bundle have ground truth"):
        load_expected(save_expected(mixed, "image"), "image", 2)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_damage_ends_in_another_error(noise, place):
    data = bytearray(archive(GOOD))
    data[place : place + len(noise)] = noise
    with suppress(ArtifactError):
        load_expected(bytes(data), "image", 1)


@pytest.mark.parametrize("count", [0, 2, 2**40])
def test_another_number_of_images_is_refused(count):
    with pytest.raises(ArtifactError):
        load_expected(save_expected(examples(1), "image"), "image", count)


def test_labels_and_ground_truth_are_classes_of_the_net():
    written = Expected(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]], np.uint8), np.array([[1, 7]], np.uint8))
    two, one = spec(), spec(num_classes=1, classes=("blue",), palette=default_palette(1))
    check_values([written], "image", two, 7)
    for net, ignored in ((two, None), (one, 7), (two, 6)):
        with pytest.raises(ArtifactError, match="labels beyond"):
            check_values([written], "image", net, ignored)


def test_logits_have_the_channels_of_the_net():
    names = ("a", "b", "c", "d")
    check_values(with_logits(), "tensor", spec(num_classes=4, classes=names, palette=default_palette(4)), None)
    with pytest.raises(ArtifactError, match="got 4 channels; expected 2"):
        check_values(with_logits(), "tensor", spec(), None)


def test_ground_truth_of_which_all_is_ignored_is_refused():
    image, labels, truth = np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2), np.uint8), np.full((1, 2), 255, np.uint8)
    written = Expected(image, labels, truth)
    check_values([written, Expected(image, labels, labels)], "image", spec(), 255)
    with pytest.raises(ArtifactError, match=r"labels no pixel.*got 255 everywhere, which is ignored"):
        check_values([written], "image", spec(), 255)


def test_an_image_and_results_of_another_size_are_an_input_error():
    with pytest.raises(InputError, match="differ in size"):
        Expected(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), np.uint8))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=200),
    channels=st.one_of(st.none(), st.integers(1, 150)),
)
def test_images_are_few_different_and_not_too_large(sizes, channels):
    chosen = images_that_fit(sizes, channels)
    assert chosen == sorted(set(chosen))
    assert min(2, len(sizes)) <= len(chosen) <= MOST_IMAGES
    of_pixel = 4 + (1 if channels is None else 4 * channels)
    total = sum(sizes[index][0] * sizes[index][1] * of_pixel for index in chosen)
    assert total <= MOST_BYTES or len(chosen) <= 2


def test_images_are_spread_over_all():
    assert images_that_fit([(8, 8)] * 100, None) == list(range(0, 100, 5))
    assert images_that_fit([(1024, 2048)] * 100, None) == [0, 16, 33, 50, 66, 83]
    assert images_that_fit([(512, 512)] * 100, 21) == [0, 50]
