import numpy as np
import pytest

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.evaluation.accuracy import confusion_matrix, miou_drop
from fcn_deploy.evaluation.comparison import compare, confusion_matrices
from fcn_deploy.evaluation.parity import run
from fcn_deploy.runtime import Segmenter

CLASSES = 3


class Fake:
    """A backend whose labels are the red channel modulo the classes, but for the first `wrong` columns."""

    name = "fake"
    metadata = {}  # noqa: RUF012

    def __init__(self, io="tensor", wrong=0, batch="batch", classes=CLASSES):
        self.wrong, self.io, self.classes = wrong, io, classes
        image = TensorSpec("image", "uint8", (batch, "height", "width", 3))
        tensor = TensorSpec("image", "float32", (batch, 3, "height", "width"))
        self.inputs = (image if io == "image" else tensor,)
        self.outputs = (TensorSpec("labels" if io == "image" else "logits", "float32", ()),)
        self.batches = []

    def infer(self, feeds):
        image = feeds["image"] if self.io == "image" else feeds["image"].transpose(0, 2, 3, 1)
        self.batches.append(len(image))
        labels = image[..., 0].astype(np.int64) % self.classes
        labels[..., : self.wrong] = (labels[..., : self.wrong] + 1) % self.classes
        if self.io == "image":
            return {"labels": labels.astype(np.uint8)}
        return {"logits": np.eye(self.classes, dtype=np.float32)[labels].transpose(0, 3, 1, 2)}

    def close(self):
        pass


def segmenter(classes=CLASSES, **options):
    names = tuple(map(str, range(classes)))
    raw = Normalization("RGB", 1.0, (0, 0, 0), (1, 1, 1))
    spec = ModelSpec("fcn8s", 8, 1.0, classes, names, default_palette(classes), normalization=raw)
    return Segmenter(Fake(classes=classes, **options), spec=spec)


@pytest.fixture
def images():
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (4, 10 + index, 3), dtype=np.uint8) for index in range(4)]


@pytest.fixture
def truths(images):
    """The labels that the fakes give, with a column that is not labelled."""
    truths = [image[..., 0].astype(np.int32) % CLASSES for image in images]
    for truth in truths:
        truth[:, -1] = 255
    return truths


def unlabelled(images):
    return ((image, None) for image in images)


def test_an_engine_like_its_reference_is_perfect(images):
    result = compare(segmenter(), [segmenter()], unlabelled(images), None)
    (engine,) = result.engines
    assert (engine.parity.images, engine.parity.agreement, engine.parity.error) == (4, 1.0, 0.0)
    assert engine.confusion is engine.drop is result.reference is None


def test_an_engine_that_differs_in_known_pixels_agrees_in_the_others(images):
    (engine,) = compare(segmenter(), [segmenter(wrong=2)], unlabelled(images), None).engines
    assert engine.parity.agreement == 1 - 4 * 2 * 4 / sum(image.shape[0] * image.shape[1] for image in images)
    assert engine.parity.error == 1


@pytest.mark.parametrize(("reference", "engine"), [("image", "tensor"), ("tensor", "image"), ("image", "image")])
def test_an_engine_that_gives_labels_has_no_error(images, reference, engine):
    (found,) = compare(segmenter(io=reference), [segmenter(io=engine)], unlabelled(images), None).engines
    assert found.parity.agreement == 1
    assert found.parity.error is None


def test_engines_are_compared_apart_and_in_their_order(images):
    engines = [segmenter(wrong=wrong) for wrong in (0, 3, 1)]
    found = compare(segmenter(), engines, unlabelled(images), None).engines
    total = sum(image.shape[1] for image in images)
    assert [each.parity.agreement for each in found] == pytest.approx([1, 1 - 12 / total, 1 - 4 / total])


def test_ground_truth_is_compared_with_engines_and_reference(images, truths):
    result = compare(segmenter(), [segmenter(wrong=3)], zip(images, truths, strict=True), 255)
    (engine,) = result.engines
    assert result.reference.shape == engine.confusion.shape == (4, CLASSES, CLASSES)
    for image, truth, reference, confusion in zip(images, truths, result.reference, engine.confusion, strict=True):
        labels = [run(one, image).labels for one in (segmenter(), segmenter(wrong=3))]
        np.testing.assert_array_equal(reference, confusion_matrix(truth, labels[0], CLASSES, 255))
        np.testing.assert_array_equal(confusion, confusion_matrix(truth, labels[1], CLASSES, 255))
    assert not (result.reference - np.stack([np.diag(np.diag(m)) for m in result.reference])).any()
    assert engine.drop == miou_drop(result.reference, engine.confusion)
    assert engine.drop.points > 10


def test_every_engine_sees_every_image_once_and_images_are_read_once(images, truths):
    reference, engine = segmenter(), segmenter(io="image")
    read = []

    def samples():
        for image, truth in zip(images, truths, strict=True):
            read.append(len(read))
            yield image, truth

    compare(reference, [engine], samples(), 255)
    assert read == [0, 1, 2, 3]
    for one in (reference, engine):
        assert one._backend.batches == [1] * 4


def test_an_engine_of_a_fixed_batch_sees_the_image_in_every_place(images):
    fixed = segmenter(batch=3)
    (engine,) = compare(segmenter(), [fixed], unlabelled(images), None).engines
    assert engine.parity.agreement == 1
    assert fixed._backend.batches == [3] * 4


MIXED = (9, 9, 9, 7, 9, 9, 7, 7, 7, 7)  # widths; the first run of equal ones is longer than a batch of two


@pytest.fixture
def mixed():
    """Images of mixed sizes with ground truth that the fakes miss here and there."""
    random = np.random.default_rng(5)
    images = [random.integers(0, 256, (4, width, 3), dtype=np.uint8) for width in MIXED]
    return [(image, random.choice([0, 1, 2, 255], image.shape[:2])) for image in images]


@pytest.mark.parametrize(
    ("batch", "batches"), [(2, [2, 1, 1, 2, 2, 2]), (3, [3, 1, 2, 3, 1]), (4, [3, 1, 2, 4]), (99, [3, 1, 2, 4])]
)
@pytest.mark.parametrize("io", ["tensor", "image"])
def test_batches_of_equal_size_give_the_same_image_by_image(mixed, batch, batches, io):
    one_by_one = compare(segmenter(), [segmenter(io=io, wrong=2)], mixed, 255)
    engine = segmenter(io=io, wrong=2)
    found = compare(segmenter(), [engine], mixed, 255, batch=batch)
    assert engine._backend.batches == batches
    np.testing.assert_array_equal(found.reference, one_by_one.reference)
    np.testing.assert_array_equal(found.engines[0].confusion, one_by_one.engines[0].confusion)
    assert found.engines[0].parity == one_by_one.engines[0].parity
    assert found.engines[0].drop == one_by_one.engines[0].drop
    alone, _ = confusion_matrices(segmenter(io=io, wrong=2), mixed, 255, batch=batch)
    np.testing.assert_array_equal(alone, one_by_one.engines[0].confusion)


def test_a_batch_is_run_before_more_than_one_image_beyond_it_is_read(mixed):
    engine, read, ahead = segmenter(), [], []
    infer = engine._backend.infer
    engine._backend.infer = lambda feeds: ahead.append(len(read) - sum(engine._backend.batches)) or infer(feeds)

    def samples():
        for sample in mixed:
            read.append(sample)
            yield sample

    confusion_matrices(engine, samples(), 255, batch=2)
    assert max(ahead) == 2
    assert sum(engine._backend.batches) == len(mixed)


@pytest.mark.parametrize(("batch", "batches"), [(1, [3] * 10), (2, [3] * 6), (4, [3] * 5), (99, [3] * 5)])
def test_an_engine_of_a_fixed_batch_is_fed_its_own(mixed, batch, batches):
    fixed = segmenter(batch=3)
    found, truth = confusion_matrices(fixed, mixed, 255, batch=batch)
    wanted, same = confusion_matrices(segmenter(), mixed, 255)
    np.testing.assert_array_equal(found, wanted)
    assert truth == same
    assert fixed._backend.batches == batches


def test_a_batch_without_images_is_refused(mixed):
    with pytest.raises(UsageError, match="at least one"):
        compare(segmenter(), [segmenter()], mixed, 255, batch=0)


def test_without_engines_the_reference_is_still_compared_with_the_truth(images, truths):
    result = compare(segmenter(), [], zip(images, truths, strict=True), 255)
    assert result.engines == ()
    assert len(result.reference) == 4


def test_a_comparison_without_samples_is_an_error():
    with pytest.raises(InputError, match="no images to compare on"):
        compare(segmenter(), [segmenter()], [], None)


def test_ground_truth_that_is_not_a_class_is_an_error(images, truths):
    with pytest.raises(InputError, match=r"not classes; got 255;"):
        compare(segmenter(), [segmenter()], zip(images, truths, strict=True), None)


def test_ground_truth_of_another_size_is_an_error(images, truths):
    with pytest.raises(InputError, match="differ in shape"):
        compare(segmenter(), [segmenter()], [(images[0], truths[1])], 255)


@pytest.mark.parametrize("io", ["image", "tensor"])
def test_an_engine_of_another_number_of_classes_is_an_error(images, truths, io):
    with pytest.raises(InputError):
        compare(segmenter(io="image"), [segmenter(5, io=io)], zip(images, truths, strict=True), 255)


def test_what_the_ground_truth_says_is_part_of_every_comparison(images, truths):
    found = compare(segmenter(), [segmenter(wrong=2)], zip(images, truths, strict=True), (255, 254))
    pixels = sum(truth.size for truth in truths)
    assert found.truth.pixels == pixels
    assert found.truth.ignored == 4 * 4 / pixels
    assert (found.truth.ignored_values, found.truth.absent) == ((255,), ())
    assert compare(segmenter(), [segmenter()], unlabelled(images), None).truth is None
    _, alone = confusion_matrices(segmenter(), zip(images, truths, strict=True), (255, 254))
    assert alone == found.truth


@pytest.mark.parametrize("engines", [0, 1])
def test_truth_that_is_ignored_everywhere_is_an_error(images, engines):
    ignored = [(image, np.full(image.shape[:2], 255)) for image in images]
    with pytest.raises(InputError, match="labels no pixel"):
        compare(segmenter(), [segmenter()] * engines, ignored, 255)
    with pytest.raises(InputError, match="labels no pixel"):
        confusion_matrices(segmenter(), ignored, 255)


def test_only_engines_of_which_one_gives_a_class_are_blamed_for_it(images):
    zeros = [(image, np.zeros(image.shape[:2], int)) for image in images]
    found = compare(segmenter(), [segmenter()], zeros, None)
    labels = np.concatenate([image[..., 0].ravel() % CLASSES for image in images])
    assert found.truth.absent == ("1", "2")
    assert found.truth.predicted_absent == {"1": np.mean(labels == 1), "2": np.mean(labels == 2)}


@pytest.mark.parametrize("batch", [1, 2])
def test_who_watches_is_told_of_each_image_with_its_labels(images, truths, batch):
    seen = []
    same = [*images, images[-1]]
    pairs = list(zip(same, [*truths, truths[-1]], strict=True))
    compare(segmenter(), [segmenter(wrong=2), segmenter()], pairs, 255, batch=batch, watch=seen.append)
    assert len(seen) == len(pairs)
    for each, (image, truth) in zip(seen, pairs, strict=True):
        assert (each.image == image).all()
        assert (each.truth == truth).all()
        wrong, right = each.found
        assert (right == each.expected).all()
        assert (wrong != each.expected).all(0).tolist() == [True, True] + [False] * (image.shape[1] - 2)
