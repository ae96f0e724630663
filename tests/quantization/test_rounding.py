"""Rounding of weights: what each kind promises, against every other choice, and on smooth and rough inputs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.errors import UsageError
from fcn_deploy.quantization.rounding import check_rounding, round_weights, tap_correlation

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


def weights(shape, seed, spread=20.0):
    return np.random.default_rng(seed).normal(0, spread, shape)


def error(rounded, steps, dilations=(1, 1)):
    """The expected square of the error that rounding adds to an output, for each kernel."""
    errors = (rounded - steps).reshape(*steps.shape[:2], -1)
    return np.einsum("oci,ij,ocj->oc", errors, tap_correlation(steps.shape[2:], dilations), errors)


@settings(max_examples=80, deadline=None)
@given(
    shape=SHAPES,
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    dilations=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_correlated_rounding_takes_neighbouring_integers_and_errs_no_more_than_nearest(shape, seed, spread, dilations):
    steps = weights(shape, seed, spread)
    rounded = round_weights(steps, "correlated", dilations)
    assert rounded.shape == steps.shape
    assert (rounded == np.rint(rounded)).all()
    assert (np.abs(rounded - steps) < 1).all()
    assert (error(rounded, steps, dilations) <= error(np.rint(steps), steps, dilations) + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 1000))
def test_no_single_flip_improves_correlated_rounding(shape, seed):
    steps = weights(shape, seed)
    rounded = round_weights(steps, "correlated")
    best = error(rounded, steps)
    for row, column in itertools.product(*map(range, shape[2:])):
        other = rounded.copy()
        here = other[..., row, column]
        other[..., row, column] = np.where(here > steps[..., row, column], here - 1, here + 1)
        assert (error(other, steps) >= best - 1e-6).all()


def test_correlated_rounding_comes_close_to_the_best_of_all_choices():
    steps = weights((1, 50, 2, 3), 0)
    floor = np.floor(steps)
    choices = [error(floor + np.reshape(choice, (2, 3)), steps) for choice in itertools.product([0.0, 1.0], repeat=6)]
    best, nearest = np.min(choices, axis=0), error(np.rint(steps), steps)
    found = error(round_weights(steps, "correlated"), steps)
    assert best.mean() <= found.mean() <= best.mean() + 0.1 * (nearest - best).mean()


def test_integers_stay_what_they_are():
    steps = np.arange(-32, 32, dtype=np.float32).reshape(2, 2, 4, 4)
    for rounding in ("nearest", "correlated"):
        np.testing.assert_array_equal(round_weights(steps, rounding), steps)


def test_kernels_of_one_tap_and_far_apart_taps_are_rounded_to_the_nearest():
    for steps, dilations in ((weights((3, 5, 1, 1), 0), ()), (weights((3, 5, 2, 2), 0), (99, 99))):
        np.testing.assert_array_equal(round_weights(steps, "correlated", dilations), np.rint(steps))
    steps = weights((3, 5, 3, 3), 0)
    np.testing.assert_array_equal(round_weights(steps, "nearest"), np.rint(steps))


def test_kernels_of_several_blocks_are_rounded_independently():
    steps = weights((70, 130, 3, 3), 0)
    apart = np.stack([round_weights(each[np.newaxis], "correlated")[0] for each in steps])
    np.testing.assert_array_equal(round_weights(steps, "correlated"), apart)


def smooth(random, height=64, width=64):
    """White noise after two 5x5 means: neighbours correlate by about 0.9."""
    image = random.normal(size=(8, height + 8, width + 8))
    for _ in range(2):
        image = np.lib.stride_tricks.sliding_window_view(image, (5, 5), axis=(1, 2)).mean(axis=(-1, -2))
    return image


@pytest.mark.parametrize(("rough", "least", "most"), [(False, 0.1, 0.5), (True, 1.0, 1.5)])
def test_correlated_rounding_halves_the_error_power_on_smooth_inputs_and_not_on_noise(rough, least, most):
    random = np.random.default_rng(0)
    image = random.normal(size=(8, 64, 64)) if rough else smooth(random)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
    steps = weights((16, 8, 3, 3), 1)
    power = {
        rounding: np.square(np.einsum("ocij,chwij->ohw", round_weights(steps, rounding) - steps, windows)).mean()
        for rounding in ("nearest", "correlated")
    }
    assert least <= power["correlated"] / power["nearest"] <= most


def test_correlation_falls_with_the_distance_in_pixels():
    correlation = tap_correlation((3, 3), (1, 2))
    assert (np.diag(correlation) == 1).all()
    assert correlation[0, 3] == pytest.approx(0.8)  # one row below
    assert correlation[0, 1] == pytest.approx(0.8**2)  # one column on, dilated by two
    assert correlation[0, 4] == pytest.approx(0.8**5**0.5)
    assert (np.linalg.eigvalsh(correlation) > 0).all()


def test_an_unknown_rounding_is_refused():
    with pytest.raises(UsageError, match="unknown rounding of weights; got 'up'; expected nearest or correlated"):
        check_rounding("up")
