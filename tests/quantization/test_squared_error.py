"""The squared error of a range, against that of quantising the values themselves, and the range of least error."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.ranges import Histogram, Range
from fcn_deploy.quantization.entropy import entropy
from fcn_deploy.quantization.methods import min_max, percentile
from fcn_deploy.quantization.squared_error import least_squared_error, squared_error
from tests.support.histograms import VALUES, histogram_of

RANDOM = np.random.default_rng(5)
DRAWN = {
    "normal": RANDOM.normal(0, 1, 100_000),
    "relu": np.maximum(RANDOM.normal(0, 1, 100_000), 0),
    "laplace": RANDOM.laplace(0.3, 1, 100_000),
    "skewed": RANDOM.gamma(2, 1, 100_000) - 1,
}


def quantized(values, chosen, symmetric):
    if symmetric:
        scale = max(-chosen.lo, chosen.hi) / 127
        return np.rint(values / scale).clip(-127, 127) * scale
    scale = (chosen.hi - chosen.lo) / 255
    zero = round(-chosen.lo / scale)
    return (np.rint(values / scale) + zero).clip(0, 255) * scale - zero * scale


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("share", [99, 99.9, 100])
@pytest.mark.parametrize("name", DRAWN)
def test_the_error_of_a_histogram_is_that_of_quantising_its_values(name, share, symmetric):
    values = DRAWN[name].astype(np.float32)
    histogram = histogram_of(values)
    chosen = percentile(histogram, share)
    measured = np.square(values - quantized(values, chosen, symmetric)).mean()
    assert squared_error(histogram, chosen, symmetric=symmetric) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("symmetric", [False, True])
@settings(max_examples=40, deadline=None)
@given(values=VALUES)
def test_minmax_never_has_a_smaller_error_than_mse(symmetric, values):
    histogram = histogram_of(values)
    least = squared_error(histogram, least_squared_error(histogram, symmetric), symmetric=symmetric)
    assert least <= squared_error(histogram, min_max(histogram), symmetric=symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DRAWN)
def test_on_many_values_mse_has_the_smallest_error_of_all_methods(name, symmetric):
    histogram = histogram_of(DRAWN[name].astype(np.float32))
    least = squared_error(histogram, least_squared_error(histogram, symmetric), symmetric=symmetric)
    for other in (min_max(histogram), percentile(histogram), entropy(histogram)):
        assert least <= 1.001 * squared_error(histogram, other, symmetric=symmetric)


def test_a_laplace_distribution_is_cut_where_banner_et_al_cut_it():
    """At 9.89 times its diversity, for 8 bits: "ACIQ", https://arxiv.org/abs/1810.05723, table 1."""
    edges = np.linspace(-32, 32, 4097)
    centres = (edges[1:] + edges[:-1]) / 2
    counts = np.rint(1e15 * np.exp(-np.abs(centres)) * (edges[1] - edges[0]) / 2).astype(np.int64)
    chosen = least_squared_error(Histogram(-32.0, 32.0, -32.0, 32.0, counts), symmetric=True)
    assert chosen.hi == pytest.approx(9.89, rel=0.03)
    assert chosen.lo == -chosen.hi


@pytest.mark.parametrize("value", [3.0, -3.0, 0.0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_constant_can_be_represented(value, symmetric):
    histogram = histogram_of([value] * 9)
    chosen = least_squared_error(histogram, symmetric)
    assert squared_error(histogram, chosen, symmetric=symmetric) <= (value / 100) ** 2 + 1e-30
    assert min(0, value) <= chosen.lo <= 0 <= chosen.hi <= max(0, value)


@settings(max_examples=30, deadline=None)
@given(values=VALUES, exponent=st.integers(-6, 6))
def test_scaling_values_by_powers_of_two_scales_the_mse_range(values, exponent):
    values = np.round(values, 2).astype(np.float32)
    assume(np.abs(values).max() > 0)
    factor = 2.0**exponent
    plain, scaled = (least_squared_error(histogram_of(each), True) for each in (values, values * np.float32(factor)))
    assert (scaled.lo, scaled.hi) == pytest.approx((plain.lo * factor, plain.hi * factor))


def test_a_range_of_zero_represents_zero_alone():
    histogram = histogram_of([0.0, 2.0])
    assert squared_error(histogram, Range(0.0, 0.0), symmetric=True) == pytest.approx(2, rel=0.01)
