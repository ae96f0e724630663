import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.parity import Output, ParityTally, agreement_interval, compare_backends, relative_error

VALUES = st.floats(-1e4, 1e4, width=32)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=6)
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(*(hnp.arrays(np.float32, shape, elements=VALUES) for _ in range(2))))


def output(logits):
    logits = np.asarray(logits, np.float32)
    return Output(logits.argmax(0), logits)


def one_row(*logits):
    """Logits [C, 1, W] from one list for each class."""
    return output(np.asarray(logits, np.float32)[:, np.newaxis, :])


def parity(*pairs):
    tally = ParityTally()
    for expected, found in pairs:
        tally.add(expected, found)
    return tally.result()


# relative_error


def test_the_error_is_the_largest_difference_over_the_references_range():
    assert relative_error(np.array([-1.0, 3.0]), np.array([-1.0, 2.0])) == 0.25
    assert relative_error(np.array([-1.0, 3.0]), np.array([1.0, 4.0])) == 0.5


def test_the_range_is_the_references_not_the_candidates():
    assert relative_error(np.array([0.0, 1.0]), np.array([0.0, 11.0])) == 10
    assert relative_error(np.array([0.0, 11.0]), np.array([0.0, 1.0])) == pytest.approx(10 / 11)


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_the_error_follows_its_formula(pair):
    reference, candidate = (array.astype(np.float64) for array in pair)
    wanted = np.abs(reference - candidate).max() / max(reference.max() - reference.min(), 1e-6)
    assert relative_error(*pair) == pytest.approx(wanted, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, SHAPES, elements=VALUES))
def test_equal_results_have_no_error(array):
    assert relative_error(array, array.copy()) == 0


def test_a_constant_reference_does_not_divide_by_zero():
    assert relative_error(np.full(3, 5.0), np.full(3, 5.0)) == 0
    assert relative_error(np.full(3, 5.0), np.full(3, 6.0)) == pytest.approx(1e6)


def test_a_small_difference_of_large_values_is_not_lost():
    reference = np.array([1e8, 0], np.float32)
    assert relative_error(reference, np.array([1e8 + 8, 0], np.float32)) == pytest.approx(8e-8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference", "candidate", "both"])
def test_a_value_that_is_not_finite_is_an_infinite_error(bad, side):
    fine, broken = np.array([1.0, 2.0], np.float32), np.array([1.0, bad], np.float32)
    reference = fine if side == "candidate" else broken
    candidate = fine if side == "reference" else broken
    assert relative_error(reference, candidate) == math.inf


def test_results_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"differ in shape; got \[1, 3\]; expected \[3\]"):
        relative_error(np.zeros(3), np.zeros((1, 3)))


# compare_backends


class Doubling:
    """Gives its input times two, plus something."""

    outputs = (SimpleNamespace(name="logits"), SimpleNamespace(name="other"))

    def __init__(self, offset=0.0):
        self.offset = offset

    def infer(self, feeds):
        return {"logits": 2 * feeds["image"] + self.offset, "other": np.full(1, self.offset * 100)}


def test_backends_are_compared_on_every_input_by_their_first_output():
    feeds = [{"image": np.array([0.0, 1.0])}, {"image": np.array([0.0, 0.25])}, {"image": np.array([0.0, 2.0])}]
    assert compare_backends(Doubling(), Doubling(), feeds) == 0
    # The offset is the same each time, and the second input has the smallest range: 0 to 0.5.
    assert compare_backends(Doubling(), Doubling(0.125), iter(feeds)) == 0.25


# ParityTally


def test_agreement_is_the_share_of_pixels_over_all_images():
    small = one_row([1, 0], [0, 1]), one_row([1, 1], [0, 0])  # 1 of 2 alike
    large = one_row([1, 1, 1, 1, 1, 0], [0] * 6), one_row([1] * 6, [0] * 6)  # ties go to the first: all 6 alike
    result = parity(small, large)
    assert result.images == 2
    assert result.agreement == 7 / 8


def test_the_error_is_that_of_the_worst_image():
    first = one_row([0, 4], [0, 0]), one_row([0, 3], [0, 0])  # 1 of 4
    second = one_row([0, 2], [0, 0]), one_row([1, 2], [0, 0])  # 1 of 2
    assert parity(first, second).error == parity(second, first).error == 0.5


def test_sqnr_is_signal_over_noise_of_all_images_in_decibels():
    first = one_row([3, 4], [0, 0]), one_row([3, 4], [0, 0])
    second = one_row([0, 0], [5, 5]), one_row([0, 0.5], [5, 5.5])
    signal, noise = 9 + 16 + 25 + 25, 0.25 + 0.25
    assert parity(first, second).sqnr == pytest.approx(10 * math.log10(signal / noise))


@settings(max_examples=50, deadline=None)
@given(PAIRS.filter(lambda pair: pair[0].ndim == 3))
def test_a_comparison_follows_its_formulas(pair):
    result = parity((output(pair[0]), output(pair[1])))
    reference, candidate = (array.astype(np.float64) for array in pair)
    assert result.agreement == np.mean(pair[0].argmax(0) == pair[1].argmax(0))
    assert result.error == pytest.approx(relative_error(*pair))
    signal, noise = np.square(reference).sum(), np.square(reference - candidate).sum()
    if signal > 1e-6 and noise > 1e-6:
        assert result.sqnr == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)


def test_equal_results_agree_without_error_and_noise():
    same = one_row([0, 4], [1, 0])
    result = parity((same, same), (same, same))
    assert (result.images, result.agreement, result.error, result.sqnr) == (2, 1.0, 0.0, math.inf)


def test_equal_results_of_zero_have_no_noise():
    same = one_row([0, 0], [0, 0])
    assert parity((same, same)).sqnr == math.inf


def test_noise_without_a_signal_is_not_called_equal():
    result = parity((one_row([0, 0], [0, 0]), one_row([1, 0], [0, 0])))
    assert result.error > 1
    assert result.sqnr == -math.inf


@pytest.mark.parametrize("labels_only", ["reference", "engine", "both"])
def test_labels_alone_are_compared_without_error_and_noise(labels_only):
    full = one_row([1, 0, 1, 0], [0, 1, 0, 1])
    bare = Output(np.array([[0, 1, 0, 0]], np.uint8))
    expected = full if labels_only == "engine" else bare
    found = full if labels_only == "reference" else bare
    result = parity((expected, found))
    assert result.agreement == (1.0 if labels_only == "both" else 0.75)
    assert result.error is None
    assert result.sqnr is None


def test_one_image_without_logits_leaves_the_error_unknown():
    full = one_row([1, 0], [0, 1])
    bare = Output(full.labels)
    assert parity((full, full), (full, bare), (full, full)).error is None


def test_labels_of_different_integer_types_are_compared():
    assert parity((Output(np.array([[0, 1]], np.uint8)), Output(np.array([[0, 1]], np.int64)))).agreement == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference", "engine", "both"])
def test_logits_that_are_not_finite_are_reported_not_raised(bad, side):
    # What a net that overflows in FP16 gives: the gate has to see it.
    fine, broken = one_row([1, 2], [0, 3]), one_row([1, bad], [0, 3])
    result = parity((fine if side == "engine" else broken, fine if side == "reference" else broken))
    assert result.error == math.inf
    assert result.sqnr is not None
    assert not result.sqnr > 0
    assert math.isnan(result.agreement)
    assert not result.measured
    assert (result.reference_not_finite, result.engine_not_finite) == (side != "engine", side != "reference")


def test_logits_of_one_side_alone_are_looked_at_too():
    broken = one_row([1, math.nan], [0, 3])
    result = parity((broken, Output(broken.labels)), (broken, Output(broken.labels)))
    assert (result.reference_not_finite, result.engine_not_finite, result.error) == (2, 0, None)
    assert math.isnan(result.agreement)


def test_one_label_at_every_pixel_of_both_is_no_measurement():
    zeros = one_row([1, 1], [0, 0])
    result = parity((zeros, zeros), (zeros, zeros))
    assert (result.agreement, result.only_label, result.measured) == (1.0, 0, False)
    other = one_row([1, 0], [0, 1])
    assert parity((zeros, zeros), (zeros, other)).only_label is None
    assert parity((zeros, zeros), (other, zeros)).only_label is None
    ones = one_row([0, 0], [1, 1])
    assert parity((zeros, zeros), (ones, ones)).measured  # one label an image, but two in all
    assert parity((zeros, ones)).measured  # they do not agree


def test_results_of_another_size_are_refused():
    with pytest.raises(InputError, match=r"differ in size; got \[1, 3\]; expected \[1, 2\]"):
        parity((one_row([1, 0], [0, 1]), one_row([1, 0, 0], [0, 1, 1])))


def test_logits_of_another_number_of_classes_are_refused():
    with pytest.raises(InputError, match="differ in shape"):
        parity((one_row([1, 0], [0, 1]), one_row([1, 0], [0, 1], [0, 0])))


def test_nothing_to_compare_is_an_error():
    with pytest.raises(InputError, match="no images to compare on") as caught:
        ParityTally().result()
    assert caught.value.exit_code == 6


# The interval of the agreement


COUNTS = st.lists(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=2, max_size=9
)


@settings(max_examples=50, deadline=None)
@given(COUNTS)
def test_the_interval_lies_between_the_worst_and_the_best_image(counts):
    same, pixels = zip(*counts, strict=True)
    shares = np.divide(same, pixels)
    low, high = agreement_interval(same, pixels)
    assert shares.min() - 1e-12 <= low <= high <= shares.max() + 1e-12


def test_the_interval_narrows_with_more_images():
    widths = [np.subtract(*agreement_interval([90, 98, 100, 96] * n, [100] * 4 * n)[::-1]) for n in (1, 4, 16)]
    assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2] > 0


def test_an_image_weighs_by_its_pixels():
    low, high = agreement_interval([0, 10_000], [1, 10_000])  # one bad pixel is not half of the pixels
    assert (low, high) == (0.0, 1.0)  # a quarter of the draws has the bad image alone, another the good one
    low, _ = agreement_interval([0, *[10_000] * 9], [1, *[10_000] * 9])
    assert low > 0.999


def test_images_alike_in_every_pixel_leave_no_doubt():
    assert agreement_interval([6, 8, 3], [6, 8, 3]) == (1.0, 1.0)


def test_two_images_have_an_interval_and_one_has_none():
    pair = one_row([1, 0], [0, 1]), one_row([1, 1], [0, 0])  # 1 of 2 alike
    same = pair[0], pair[0]
    result = parity(pair, same)
    assert (result.agreement_low, result.agreement, result.agreement_high) == (0.5, 0.75, 1.0)
    alone = parity(pair)
    assert math.isnan(alone.agreement_low)
    assert math.isnan(alone.agreement_high)


def test_the_interval_is_the_same_each_time():
    assert agreement_interval([3, 5, 9], [9, 9, 9]) == agreement_interval([3, 5, 9], [9, 9, 9])
