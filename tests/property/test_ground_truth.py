"""Whatever form ground truth is saved in, the same classes are read, and the figures are scikit-learn's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_confusion

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.data.label_map import read_label_map
from fcn_deploy.data.labels import TruthReader
from fcn_deploy.evaluation.accuracy import class_iou, confusion_matrix
from tests.support.ground_truth import one_bit, palette_image
from tests.support.image_files import png_of_bits

IGNORED = -1  # in the truth of the test


@st.composite
def cases(draw):
    """A truth, the reader of a net, and the file in which the truth is saved."""
    form = draw(st.sampled_from(["index", "map", "colour", "palette", "palette map", "1-bit", "16-bit", "wide"]))
    classes = 2 if form == "1-bit" else draw(st.integers(2, 300 if form == "wide" else 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    truth = random.integers(0, classes, shape)
    share = 0 if form == "1-bit" else draw(st.sampled_from([0, 0.1, 0.9, 1]))
    truth[random.random(shape) < share] = IGNORED
    names = tuple(f"class {index}" for index in range(classes))
    palette = default_palette(classes)
    if draw(st.booleans()):
        codes = random.choice(np.arange(1, 1 << 24), classes, replace=False)
        palette = tuple((int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes)
    ignored = (
        (65535,) if form == "wide" else tuple(random.permutation([255, 254, 253])[: random.integers(1, 4)].tolist())
    )
    stated = {}
    values = np.where(truth == IGNORED, random.choice(ignored, shape), truth)
    if form in ("map", "16-bit", "palette map"):
        free = 65000 if form == "16-bit" else 250
        targets = random.choice(np.arange(free), classes + 1, replace=False).tolist()
        stated = {value: random.choice([str(index), names[index]]) for index, value in enumerate(targets[:-1])}
        stated[targets[-1]] = "ignore"
        some = random.random(shape) < 0.5
        unlabelled = np.where(some, targets[-1], random.choice(ignored, shape))
        values = np.where(truth == IGNORED, unlabelled, np.array(targets)[truth])
    elif form in ("index", "colour") and draw(st.booleans()):
        stated = {names[-1]: "0"}  # two classes of the net are one in the truth
    image = _saved(form, truth, values, palette)
    if names[-1] in stated:
        truth = np.where(truth == classes - 1, 0, truth)
    return truth, image, names, palette, ignored, stated


def _saved(form, truth, values, palette):
    """Returns the image to save; where black is a class, pixels that were not labelled become that class in `truth`."""
    if form == "1-bit":
        return one_bit(truth == 1)
    if form == "colour":
        colours = np.array([*palette, (0, 0, 0)], np.uint8)
        if (0, 0, 0) in palette:  # black is a class: then a mask cannot say "not labelled"
            truth[truth == IGNORED] = palette.index((0, 0, 0))
        return Image.fromarray(colours[truth])
    if form == "palette":
        if (0, 0, 0) in palette:
            truth[truth == IGNORED] = palette.index((0, 0, 0))
        colours = [*palette, (0, 0, 0)]
        order = np.random.default_rng(len(palette)).permutation(len(colours)).tolist()
        if (0, 0, 0) in palette:
            order = [index for index in order if index < len(palette)]
        return palette_image(np.where(truth == IGNORED, len(palette), truth), order, np.array(colours, np.uint8))
    if form == "palette map":
        image = Image.fromarray(values.astype(np.uint8), "P")
        image.putpalette(np.random.default_rng(7).integers(0, 256, 768, dtype=np.uint8).tobytes())
        return image
    wide = form in ("16-bit", "wide")
    return Image.fromarray(values.astype(np.uint16 if wide else np.uint8))


def test_figures_are_scikit_learns_for_every_form(tmp_path):
    path = tmp_path / "truth.png"

    @settings(max_examples=150, deadline=None)
    @given(cases(), st.integers(0, 2**32 - 1))
    def check(case, seed):
        truth, image, names, palette, ignored, stated = case
        image.save(path)
        reader = TruthReader(len(names), palette, ignored, read_label_map(stated, names, ignored))
        read = reader.read(path)
        np.testing.assert_array_equal(np.where(read == reader.ignore_index, IGNORED, read), truth)
        labels = np.random.default_rng(seed).integers(0, len(names), truth.shape)
        matrix = confusion_matrix(read, labels, len(names), reader.ignore_index)
        counted = truth != IGNORED
        if not counted.any():
            assert not matrix.any()
            return
        wanted = sklearn_confusion(truth[counted], labels[counted], labels=range(len(names)))
        np.testing.assert_array_equal(matrix, wanted)
        assert np.nanmax(class_iou(matrix)) <= 100

    check()


def _voc(size):
    return np.array(default_palette(size), np.uint8)


@st.composite
def wide_cases(draw):
    """The content of a file, and what it means: the class of each pixel, or IGNORED; with the value that is ignored.

    Written without the code that reads: each form says itself what its pixels mean.
    """
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    form = draw(
        st.sampled_from(["any map", "void", "void palette", "padded palette", "greys", "bits", "rgba", "floats", "i32"])
    )
    classes = draw(st.integers(2, 3 if form == "bits" else 20))
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    occurring = random.permutation(classes)[: random.integers(1, classes + 1)]
    meant = random.choice(occurring, shape)
    meant[random.random(shape) < draw(st.sampled_from([0, 0.2, 0.9]))] = IGNORED
    palette, ignored, stated = default_palette(classes), (255,), {}
    void = meant == IGNORED
    if form == "any map":
        # Values, ignored values and classes may all be the same numbers: the map is read first.
        values = random.choice(60, 2 * classes + 3, replace=False)
        meanings = [*range(classes), *random.integers(0, classes, classes)]
        for value, label in zip(values, meanings, strict=False):
            stated[int(value)] = int(label)
        stated[int(values[-1])] = None
        ignored = tuple(int(value) for value in values[-3:-1])
        of_class = {label: [v for v, each in stated.items() if each == label] for label in range(classes)}
        of_class[IGNORED] = [int(value) for value in values[-3:]]
        pixels = np.vectorize(lambda label: random.choice(of_class[label]), otypes=[int])(meant).astype(np.uint8)
        image = Image.fromarray(pixels)
    elif form == "void":
        image = Image.fromarray(_voc(256)[np.where(void, 255, meant)])
    elif form == "void palette":
        order = random.permutation([*range(classes), 255]).tolist()
        image = Image.fromarray(np.vectorize(order.index)(np.where(void, 255, meant)).astype(np.uint8), "P")
        image.putpalette(_voc(256)[order].tobytes())
    elif form == "padded palette":
        image = Image.fromarray(np.where(void, 255, meant).astype(np.uint8), "P")
        image.putpalette(_voc(classes).tobytes() + bytes(768 - 3 * classes))
    elif form == "greys":
        grey = random.choice(np.arange(1, 250), classes, replace=False)
        palette = tuple((int(each),) * 3 for each in grey)
        image = Image.fromarray(np.where(void, random.choice([0, 255]), grey[meant]).astype(np.uint8))
    elif form == "bits":
        ignored = (3,)
        return png_of_bits(np.where(void, 3, meant), draw(st.sampled_from([2, 4]))), meant, palette, ignored, stated
    elif form == "rgba":
        palette = tuple(map(tuple, (_voc(classes) + 1).tolist()))
        alpha = random.integers(0, 256, (*shape, 1), dtype=np.uint8)
        image = Image.fromarray(np.concatenate([np.where(void[..., None], 0, _voc(classes)[meant] + 1), alpha], 2))
    else:
        ignored = (-1, 70000)
        values = np.where(void, random.choice(ignored, shape), meant)
        image = Image.fromarray(values.astype(np.float32 if form == "floats" else np.int32))
    return image, meant, palette, ignored, stated


def test_figures_are_scikit_learns_for_rare_forms_too(tmp_path):
    forms = []

    @settings(max_examples=200, deadline=None)
    @given(wide_cases(), st.integers(0, 2**32 - 1))
    def check(case, seed):
        image, meant, palette, ignored, stated = case
        path = tmp_path / "truth.png"
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            path = path.with_suffix(".tiff" if image.mode in ("F", "I") else ".png")
            image.save(path)
        names = tuple(f"class {index}" for index in range(len(palette)))
        reader = TruthReader(len(names), palette, ignored, read_label_map(stated, names, ignored))
        read, counted = reader.read_counted(path)
        assert reader.ignore_index not in range(len(names))
        np.testing.assert_array_equal(np.where(read == reader.ignore_index, IGNORED, read), meant)
        assert sum(counted.values()) == (meant == IGNORED).sum()
        labels = np.random.default_rng(seed).integers(0, len(names), meant.shape)
        known = meant != IGNORED
        wanted = np.zeros((len(names),) * 2, int)
        if known.any():
            wanted = sklearn_confusion(meant[known], labels[known], labels=range(len(names)))
        np.testing.assert_array_equal(confusion_matrix(read, labels, len(names), reader.ignore_index), wanted)
        forms.append(path.suffix)

    check()
    assert set(forms) == {".png", ".tiff"}
