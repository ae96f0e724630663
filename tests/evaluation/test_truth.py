import numpy as np
import pytest

from fcn_deploy.artifacts.measures import GroundTruth, Parity
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.accuracy import chance_miou
from fcn_deploy.evaluation.truth import (
    TruthTally,
    chance_warnings,
    parity_warnings,
    says_nothing,
    truth_warnings,
)

CLASSES = ("road", "tram", "sky")


def tallied(truth, *labels, classes=CLASSES, ignored=255):
    tally = TruthTally(classes, ignored)
    tally.add(np.array(truth), [np.array(each) for each in labels])
    return tally.result()


def test_it_says_what_is_ignored_and_which_classes_never_occur():
    found = tallied([[0, 0, 2], [255, 11, 0]], [[0, 1, 1], [1, 2, 0]], ignored=(11, 255, 7))
    assert found == GroundTruth(6, 1 / 3, (11, 255), ("tram",), {"tram": 0.5}, chance_miou(np.array([3, 0, 1])))


def test_several_images_are_one_set():
    tally = TruthTally(CLASSES, 255)
    for truth in ([0, 255], [1, 1]):
        tally.add(np.array([truth]), [np.array([[2, 0]])])
    found = tally.result()
    assert (found.pixels, found.ignored, found.absent, found.predicted_absent) == (4, 0.25, ("sky",), {"sky": 0.5})


def test_of_several_nets_the_one_that_gives_a_class_most_counts():
    assert tallied([[0, 0, 0, 0]], [[0, 0, 0, 1]], [[1, 1, 0, 2]]).predicted_absent == {"tram": 0.5, "sky": 0.25}


def test_a_class_that_is_ignored_does_not_occur():
    found = tallied([[0, 0, 1, 2]], ignored=0)
    assert (found.ignored, found.ignored_values, found.absent) == (0.5, (0,), ("road",))


@pytest.mark.parametrize("ignored", [255, (0, 255)])
def test_nothing_but_ignored_pixels_is_an_error_of_the_data(ignored):
    with pytest.raises(InputError, match=r"labels no pixel.*got 255 everywhere.*expected classes 0\.\.2") as caught:
        tallied([[255, 255]], ignored=ignored)
    assert caught.value.exit_code == 6


def test_good_ground_truth_gives_no_warning():
    assert truth_warnings(tallied([[0, 1, 2, 255]], [[0, 1, 2, 0]]), 3) == []
    assert truth_warnings(tallied([[0, 0, 2, 2]], [[0, 0, 2, 2]]), 3) == []  # no net gives the class that never occurs


def test_half_ignored_is_not_yet_a_warning_and_more_is():
    assert truth_warnings(tallied([[0, 1, 255, 255]], [[0, 1, 1, 1]]), 3) == []
    (warning,) = truth_warnings(tallied([[0, 1, 255, 255, 255]], [[0, 1, 1, 1, 1]]), 3)
    assert warning.startswith("60.0% of the pixels of the ground truth are ignored (255)")


def test_a_class_that_never_occurs_is_named_if_a_net_gives_it_on_more_than_a_hundredth():
    truth = np.arange(1000)[np.newaxis] % 2
    labels = truth.copy()
    labels[0, :10] = 2
    assert truth_warnings(tallied(truth, labels), 3) == []
    labels[0, :11] = 2
    (warning,) = truth_warnings(tallied(truth, labels), 3)
    assert warning == "the net predicts classes that never occur in the ground truth: sky (1.1%) of the pixels"


def test_masks_of_0_and_255_are_warned_about_by_the_name_of_the_class_that_was_lost():
    masks = [[0, 0, 0, 255]]
    names = ("background", "object")
    perfect, blind = [[0, 0, 0, 1]], [[0, 0, 0, 0]]
    first, second = truth_warnings(tallied(masks, perfect, classes=names), 2)
    assert "object (25.0%)" in first
    assert "255 is ignored on 25.0%: is it one of these classes? A label map would say so" in first
    assert "object" in second
    (only,) = truth_warnings(tallied(masks, blind, classes=names), 2)  # whose mIoU is 100
    assert only.startswith("only one class occurs in the ground truth, so that figures say nothing about: object")


def test_many_names_are_cut_to_eight():
    names = tuple(f"class_{index}" for index in range(30))
    truth = tallied([[0] * 29], [list(range(1, 30))], classes=names)
    for warning in truth_warnings(truth, 30):
        assert "and 21 more" in warning
        assert warning.count("class_") == 8


def test_a_net_near_chance_is_named_with_both_figures():
    truth = GroundTruth(100, 0.0, chance=20.0)
    (warning,) = chance_warnings("PyTorch", 5.92, truth, 3)
    assert "PyTorch itself has an mIoU of 5.92" in warning
    assert "20.00" in warning
    assert "the normalisation or the class order is wrong" in warning
    assert chance_warnings("PyTorch", 28.0, truth, 3) == []


def test_of_one_class_guessing_is_always_right_and_nobody_is_blamed():
    assert chance_warnings("PyTorch", 50.0, GroundTruth(9, 0.0, absent=("tram",), chance=100.0), 2) == []


def test_what_an_agreement_that_says_nothing_is_called():
    assert says_nothing(Parity(3, 0.99)) is None
    assert parity_warnings("a.onnx", Parity(3, 0.99)) == []
    assert says_nothing(Parity(3, 1.0, only_label=0)).startswith("agreement says nothing: both nets give label 0")
    both = Parity(3, float("nan"), reference_not_finite=1, engine_not_finite=3)
    assert parity_warnings("a.onnx", both) == [
        "a.onnx: logits of the reference are NaN or infinite on 1 of 3 images, "
        "logits of the engine are NaN or infinite on 3 of 3 images"
    ]
