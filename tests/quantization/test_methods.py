import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.ranges import Histogram, Range
from fcn_deploy.errors import UsageError
from fcn_deploy.quantization.methods import METHODS, PERCENTILE, choose, min_max, percentile
from tests.support.histograms import VALUES, histogram_of

SHARES = st.floats(0.01, 100)


def holds(chosen, values):
    """How many of the values a range represents."""
    return int(((values >= chosen.lo) & (values <= chosen.hi)).sum())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30, deadline=None)
@given(values=VALUES)
def test_every_method_gives_a_range_with_zero_and_nothing_unseen(method, symmetric, values):
    chosen = METHODS[method](histogram_of(values), symmetric)
    assert min(0.0, values.min()) <= chosen.lo <= 0 <= chosen.hi <= max(0.0, values.max())


# min_max


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_minmax_is_the_range_of_the_values(values):
    assert min_max(histogram_of(values)) == Range(min(0.0, float(values.min())), max(0.0, float(values.max())))
    assert holds(min_max(histogram_of(values)), values) == len(values)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([1, 3], (0, 3)), ([-3, -1], (-3, 0)), ([-1, 2], (-1, 2)), ([0], (0, 0)), ([5], (0, 5)), ([-5], (-5, 0))],
)
def test_minmax_includes_zero(values, wanted):
    assert min_max(histogram_of(values)) == Range(*wanted)


# percentile


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_percentile_100_is_minmax_within_a_bin(values):
    histogram = histogram_of(values)
    everything, seen = percentile(histogram, 100), min_max(histogram)
    assert everything.lo == pytest.approx(seen.lo, abs=histogram.width)
    assert everything.hi == pytest.approx(seen.hi, abs=histogram.width)


@settings(max_examples=50, deadline=None)
@given(VALUES, SHARES, SHARES)
def test_a_larger_percentile_gives_no_narrower_range(values, one, other):
    histogram = histogram_of(values)
    narrow, wide = percentile(histogram, min(one, other)), percentile(histogram, max(one, other))
    assert wide.lo <= narrow.lo
    assert narrow.hi <= wide.hi


@settings(max_examples=50, deadline=None)
@given(VALUES, SHARES)
def test_a_percentile_range_holds_at_least_its_share_of_the_values(values, share):
    assert holds(percentile(histogram_of(values), share), values) >= share / 100 * len(values) - 1e-6


@settings(max_examples=100, deadline=None)
@given(VALUES, SHARES)
def test_percentile_ends_are_quantiles_within_a_bin(values, share):
    histogram, ordered = histogram_of(values), np.sort(values).astype(np.float64)
    chosen, tail = percentile(histogram, share), (100 - share) / 200

    def around(quantile):
        # The order statistics about a quantile, whichever of numpy's definitions is meant.
        position = quantile * len(ordered)
        low, high = math.floor(position) - 1, math.ceil(position)
        return ordered[max(0, min(low, len(ordered) - 1))], ordered[max(0, min(high, len(ordered) - 1))]

    (lo_least, lo_most), (hi_least, hi_most) = around(tail), around(1 - tail)
    assert min(0, lo_least - histogram.width) <= chosen.lo <= min(0, lo_most + histogram.width)
    assert max(0, hi_least - histogram.width) <= chosen.hi <= max(0, hi_most + histogram.width)


@pytest.mark.parametrize("share", [50, 90, 99, 99.9, 99.99])
def test_many_values_give_numpys_quantiles_within_a_bin(share):
    values = np.random.default_rng(0).normal(0.5, 2, 500_000).astype(np.float32)
    histogram = histogram_of(values)
    chosen = percentile(histogram, share)
    low, high = np.percentile(values, [(100 - share) / 2, (100 + share) / 2], method="inverted_cdf")
    assert chosen.lo == pytest.approx(low, abs=1.01 * histogram.width)
    assert chosen.hi == pytest.approx(high, abs=1.01 * histogram.width)


def test_percentile_cuts_outliers_off():
    values = np.append(np.linspace(-1, 1, 100_000), [1000, -500]).astype(np.float32)
    histogram = histogram_of(values)
    assert min_max(histogram) == Range(-500, 1000)
    chosen = METHODS["percentile"](histogram, False)
    assert -1 - histogram.width <= chosen.lo <= -0.99
    assert 0.99 <= chosen.hi <= 1 + histogram.width


def test_percentile_cuts_a_tensor_after_a_relu_at_its_upper_end_only():
    values = np.maximum(np.random.default_rng(0).normal(size=100_000), 0).astype(np.float32)
    chosen = percentile(histogram_of(values), 99)
    assert chosen.lo == 0
    assert chosen.hi == pytest.approx(np.quantile(values, 0.995), abs=0.01)


def test_percentile_of_a_constant_keeps_its_value():
    for value in (3.0, -3.0, 0.0, 1e-30, 1e30):
        value = float(np.float32(value))
        assert percentile(histogram_of([value] * 9), 50) == Range(min(0.0, value), max(0.0, value))


def test_the_percentile_method_uses_the_default_share():
    histogram = histogram_of(np.random.default_rng(0).normal(size=100_000))
    assert METHODS["percentile"](histogram, False) == percentile(histogram, PERCENTILE)
    assert PERCENTILE == 99.99


@pytest.mark.parametrize("share", [0, -1, 100.001, math.nan, math.inf])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UsageError, match=r"bad percentile; got .*expected above 0, at most 100"):
        percentile(histogram_of([1, 2]), share)


def test_a_histogram_of_two_bins_by_hand():
    histogram = Histogram(-1.0, 1.0, -1.0, 1.0, np.array([1, 99], np.int64))
    assert percentile(histogram, 100) == Range(-1, 1)
    assert percentile(histogram, 98) == Range(0, 1)  # one value lies below, which is all of half of 2%
    assert percentile(histogram, 98.5) == Range(-1, 1)


# Range and choose


@pytest.mark.parametrize(("lo", "hi"), [(0.5, 1), (-1, -0.5), (1, -1), (math.nan, 1), (-1, math.nan)])
def test_a_range_without_zero_is_refused(lo, hi):
    with pytest.raises(UsageError, match=r"bad range; got .*expected lo <= 0 <= hi"):
        Range(lo, hi)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_applied_to_every_tensor(method, symmetric):
    histograms = {"a": histogram_of([1, 2]), "b": histogram_of([-4, 4])}
    wanted = {name: METHODS[method](each, symmetric) for name, each in histograms.items()}
    assert choose(histograms, method, symmetric=symmetric) == wanted


@pytest.mark.parametrize("method", ["", "MinMax", "max", "entrop"])
def test_an_unknown_method_is_a_usage_error_that_lists_the_known(method):
    with pytest.raises(UsageError, match=f"unknown calibration method; got '{method}'; expected minmax or") as caught:
        choose({}, method, symmetric=False)
    assert caught.value.exit_code == 2
