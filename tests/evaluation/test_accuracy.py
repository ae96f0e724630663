import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.accuracy import (
    chance_miou,
    class_iou,
    confusion_matrix,
    frequency_weighted_iou,
    is_near_chance,
    mean_iou,
    miou_drop,
    pixel_accuracy,
)

MATRIX = np.array([[5, 1, 0], [2, 6, 0], [0, 0, 0]])  # class 2 occurs in neither


@st.composite
def labelled(draw, ignore=False):
    """Number of classes, ignored value, truth and labels."""
    classes = draw(st.integers(2, 6))
    ignored = draw(st.sampled_from([255, classes, 300])) if ignore else None
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=8))
    known = st.integers(0, classes - 1)
    truth = draw(hnp.arrays(np.int32, shape, elements=st.one_of(known, st.just(ignored)) if ignore else known))
    labels = draw(hnp.arrays(draw(st.sampled_from([np.uint8, np.int32])), shape, elements=known))
    return classes, ignored, truth, labels


def random_matrices(images, classes, accuracy, seed):
    """Confusion matrices of a net that is right that often, on images that hold every class."""
    random = np.random.default_rng(seed)
    matrices = []
    for _ in range(images):
        truth = random.integers(0, classes, (40, 40))
        right = random.random(truth.shape) < accuracy + random.normal(0, 0.05)
        matrices.append(
            confusion_matrix(truth, np.where(right, truth, random.integers(0, classes, truth.shape)), classes)
        )
    return np.stack(matrices)


# confusion_matrix


def test_rows_are_the_truth_and_columns_the_labels():
    truth = np.array([[0, 0, 1], [1, 2, 2]])
    labels = np.array([[0, 1, 1], [1, 0, 0]])
    matrix = confusion_matrix(truth, labels, 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 2, 0], [2, 0, 0]])
    assert matrix.dtype == np.int64


@settings(max_examples=80, deadline=None)
@given(labelled())
def test_it_counts_as_scikit_learn_does(sample):
    classes, _, truth, labels = sample
    wanted = metrics.confusion_matrix(truth.ravel(), labels.ravel(), labels=range(classes))
    np.testing.assert_array_equal(confusion_matrix(truth, labels, classes), wanted)


@settings(max_examples=80, deadline=None)
@given(labelled(ignore=True))
def test_ignored_pixels_count_as_if_they_were_not_there(sample):
    classes, ignored, truth, labels = sample
    counted = truth != ignored
    found = confusion_matrix(truth, labels, classes, ignored)
    assert found.sum() == counted.sum()
    np.testing.assert_array_equal(found, confusion_matrix(truth[counted], labels[counted], classes))


def test_a_class_may_be_the_one_that_is_ignored():
    truth, labels = np.array([0, 0, 1]), np.array([0, 1, 1])
    np.testing.assert_array_equal(confusion_matrix(truth, labels, 2, 0), [[0, 0], [0, 1]])


@pytest.mark.parametrize("ignored", [255, 300, -1, None])
def test_an_ignored_value_that_does_not_occur_changes_nothing(ignored):
    truth = np.array([0, 1, 1], np.uint8)
    np.testing.assert_array_equal(confusion_matrix(truth, truth, 2, ignored), [[1, 0], [0, 2]])


def test_uint8_does_not_overflow_with_many_classes():
    truth = labels = np.array([199, 199, 0], np.uint8)
    matrix = confusion_matrix(truth, labels, 200)
    assert matrix[199, 199] == 2
    assert matrix.sum() == 3


def test_everything_ignored_counts_nothing():
    truth = np.full((3, 3), 255, np.uint8)
    np.testing.assert_array_equal(confusion_matrix(truth, np.zeros((3, 3), np.uint8), 2, 255), np.zeros((2, 2)))


def test_truth_that_is_not_a_class_is_listed_and_the_parameter_named():
    truth = np.array([0, 1, 7, 255, 7], np.int32)
    with pytest.raises(InputError, match=r"values that are not classes; got 7, 255; expected 0\.\.1; .*`ignore_index`"):
        confusion_matrix(truth, np.zeros(5, np.int32), 2)
    with pytest.raises(InputError, match=r"got 7; expected 0\.\.1, or 255, which is ignored") as caught:
        confusion_matrix(truth, np.zeros(5, np.int32), 2, 255)
    assert caught.value.exit_code == 6


def test_of_many_values_that_are_not_classes_eight_are_shown():
    truth = np.arange(300, dtype=np.int32)
    with pytest.raises(InputError, match=r"got 2, 3, 4, 5, 6, 7, 8, 9 and 288 more; expected 0\.\.1, or 11 or 255"):
        confusion_matrix(truth, np.zeros(300, np.int32), 2, (255, 11))


@pytest.mark.parametrize("ignored", [[255, 2], (2, 255, 2), {2, 255}, frozenset([2, 255, 300])])
def test_several_values_may_be_ignored(ignored):
    truth = np.array([0, 1, 2, 255, 1], np.uint8)
    np.testing.assert_array_equal(confusion_matrix(truth, np.zeros(5, np.uint8), 2, ignored), [[1, 0], [2, 0]])


def test_negative_truth_is_not_a_class_either():
    with pytest.raises(InputError, match=r"got -1;"):
        confusion_matrix(np.array([0, -1]), np.array([0, 0]), 2)


@pytest.mark.parametrize("label", [2, 3, 5, 200, -1])
def test_a_label_that_is_no_class_is_refused_not_counted_elsewhere(label):
    with pytest.raises(InputError):
        confusion_matrix(np.array([0, 1]), np.array([0, label]), 2)
    with pytest.raises(InputError):
        confusion_matrix(np.array([0, 1]), np.array([label, 1]), 2)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"differ in shape; got \[2, 3\]; expected \[3, 2\]"):
        confusion_matrix(np.zeros((3, 2), int), np.zeros((2, 3), int), 2)


# Guessing


def test_chance_is_what_guessing_by_frequency_gives():
    """Labels drawn as often as each class occurs, on many pixels."""
    pixels = np.array([700_000, 200_000, 100_000])
    truth = np.repeat(np.arange(3), pixels)
    guessed = np.random.default_rng(0).permutation(truth)
    assert chance_miou(pixels) == pytest.approx(100 * (0.7 / 1.3 + 0.2 / 1.8 + 0.1 / 1.9) / 3)
    assert chance_miou(pixels) == pytest.approx(float(mean_iou(confusion_matrix(truth, guessed, 3))), abs=0.1)


def test_classes_that_never_occur_are_not_guessed():
    assert chance_miou(np.array([3, 0, 1])) == chance_miou(np.array([3, 1]))
    assert chance_miou(np.array([5, 0])) == 100
    assert np.isnan(chance_miou(np.array([0, 0])))


def test_near_chance_is_less_than_a_tenth_of_the_way_to_100():
    assert is_near_chance(27.9, 20)
    assert not is_near_chance(28, 20)
    assert is_near_chance(5.92, 20)
    assert not is_near_chance(100, 100)
    assert not is_near_chance(float("nan"), 20)


# Intersection over union


def test_iou_is_hits_over_what_either_has():
    iou = class_iou(MATRIX)
    np.testing.assert_allclose(iou[:2], [100 * 5 / 8, 100 * 6 / 9])
    assert np.isnan(iou[2])


def test_miou_is_the_mean_over_the_classes_that_occur():
    assert mean_iou(MATRIX) == pytest.approx(100 * (5 / 8 + 6 / 9) / 2)


def test_a_class_that_occurs_in_the_labels_alone_counts_as_missed():
    matrix = np.array([[4, 1], [0, 0]])
    np.testing.assert_allclose(class_iou(matrix), [80, 0])
    assert mean_iou(matrix) == pytest.approx(40)


def test_nothing_counted_is_not_a_number():
    empty = np.zeros((3, 3), np.int64)
    assert np.isnan(class_iou(empty)).all()
    assert np.isnan(mean_iou(empty))
    assert np.isnan(pixel_accuracy(empty))


def test_perfect_labels_have_100_points():
    matrix = np.diag([3, 5, 0])
    assert mean_iou(matrix) == pixel_accuracy(matrix) == 100


def test_pixel_accuracy_is_the_share_labelled_right():
    assert pixel_accuracy(MATRIX) == pytest.approx(100 * 11 / 14)


@settings(max_examples=80, deadline=None)
@given(labelled(ignore=True))
def test_scores_are_those_of_scikit_learn(sample):
    classes, ignored, truth, labels = sample
    matrix = confusion_matrix(truth, labels, classes, ignored)
    counted = truth != ignored
    truth, labels = truth[counted], labels[counted]
    if not truth.size:
        return
    present = np.union1d(truth, labels)
    wanted = 100 * metrics.jaccard_score(truth, labels, labels=present, average=None)
    np.testing.assert_allclose(class_iou(matrix)[present], wanted)
    assert mean_iou(matrix) == pytest.approx(wanted.mean())
    assert pixel_accuracy(matrix) == pytest.approx(100 * metrics.accuracy_score(truth, labels))


def test_many_matrices_are_scored_at_once():
    matrices = np.stack([MATRIX, MATRIX.T, np.diag([1, 2, 3]), np.zeros((3, 3), int)])
    np.testing.assert_array_equal(class_iou(matrices), [class_iou(matrix) for matrix in matrices])
    np.testing.assert_array_equal(mean_iou(matrices), [mean_iou(matrix) for matrix in matrices])


# The drop


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("images", [5, 30])
def test_the_interval_holds_the_drop(images, seed):
    reference = random_matrices(images, 4, 0.9, seed)
    engine = random_matrices(images, 4, 0.85, seed + 100)
    drop = miou_drop(reference, engine)
    assert drop.points == pytest.approx(float(mean_iou(reference.sum(0)) - mean_iou(engine.sum(0))))
    assert drop.low < drop.points < drop.high


def test_a_loss_is_a_positive_drop_and_a_gain_a_negative_one():
    good, bad = random_matrices(20, 4, 0.95, 0), random_matrices(20, 4, 0.7, 1)
    assert miou_drop(good, bad).low > 0
    assert miou_drop(bad, good).high < 0
    assert miou_drop(bad, good).points == -miou_drop(good, bad).points


def test_an_engine_like_its_reference_drops_nothing_for_certain():
    matrices = random_matrices(10, 4, 0.8, 0)
    drop = miou_drop(matrices, matrices.copy())
    assert (drop.points, drop.low, drop.high) == (0, 0, 0)


def test_the_interval_is_reproducible():
    reference, engine = random_matrices(10, 4, 0.9, 0), random_matrices(10, 4, 0.85, 1)
    assert miou_drop(reference, engine) == miou_drop(reference, engine)
    assert miou_drop(reference, engine, seed=1) != miou_drop(reference, engine)
    assert miou_drop(reference, engine, seed=1).points == miou_drop(reference, engine).points


def test_more_images_narrow_the_interval():
    drops = [miou_drop(random_matrices(n, 4, 0.9, 0), random_matrices(n, 4, 0.85, 1)) for n in (5, 80)]
    assert drops[1].high - drops[1].low < (drops[0].high - drops[0].low) / 2


def test_both_nets_are_drawn_on_the_same_images():
    # Images differ wildly, the nets hardly: only a paired bootstrap sees a narrow interval.
    random = np.random.default_rng(0)
    reference = np.stack([random_matrices(1, 4, accuracy, 7)[0] for accuracy in random.uniform(0.3, 0.95, 20)])
    engine = reference.copy()
    engine[:, 0, 0] -= 2
    engine[:, 0, 1] += 2
    drop = miou_drop(reference, engine)
    spread = np.ptp([float(mean_iou(matrix)) for matrix in reference])
    assert drop.high - drop.low < spread / 100
    assert drop.low > 0


def test_the_interval_is_that_of_drawing_images_one_by_one():
    reference, engine = random_matrices(12, 3, 0.9, 0), random_matrices(12, 3, 0.8, 1)
    random = np.random.default_rng(5)
    differences = []
    for _ in range(4000):
        drawn = random.integers(0, 12, 12)
        differences.append(mean_iou(reference[drawn].sum(0)) - mean_iou(engine[drawn].sum(0)))
    low, high = np.percentile(differences, [2.5, 97.5])
    drop = miou_drop(reference, engine, resamples=4000)
    assert drop.low == pytest.approx(low, abs=0.1 * (high - low))
    assert drop.high == pytest.approx(high, abs=0.1 * (high - low))


def test_one_image_has_a_drop_but_no_interval():
    drop = miou_drop(random_matrices(1, 3, 0.9, 0), random_matrices(1, 3, 0.8, 1))
    assert drop.points > 0
    assert np.isnan([drop.low, drop.high]).all()


def test_images_without_a_counted_pixel_have_no_drop():
    empty = np.zeros((3, 2, 2), np.int64)
    drop = miou_drop(empty, empty)
    assert np.isnan([drop.points, drop.low, drop.high]).all()


def test_some_images_without_a_counted_pixel_do_not_spoil_the_interval():
    reference, engine = random_matrices(3, 3, 0.9, 0), random_matrices(3, 3, 0.8, 1)
    reference[:2], engine[:2] = 0, 0
    drop = miou_drop(reference, engine)
    assert np.isfinite([drop.points, drop.low, drop.high]).all()


def test_frequency_weighted_iou_weighs_each_class_by_its_pixels():
    matrix = np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]])
    expected = (8 * 100 * 6 / 8 + 2 * 100 * 2 / 4) / 10
    assert frequency_weighted_iou(matrix) == pytest.approx(expected)
    assert np.isnan(frequency_weighted_iou(np.zeros((3, 3), np.int64)))
