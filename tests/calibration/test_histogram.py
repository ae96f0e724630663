import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcn_deploy.artifacts.ranges import Histogram
from fcn_deploy.calibration.histogram import MAX_BINS, HistogramBuilder
from fcn_deploy.errors import InputError

TINY = float(np.float32(1e-30))
ANY = st.floats(allow_nan=False, allow_infinity=False, width=32)
USUAL = st.floats(-100, 100, width=32)
ELEMENTS = st.sampled_from([ANY, USUAL, st.floats(0, 64, width=32), st.floats(-TINY, TINY, width=32)])


def arrays(max_size=50):
    return ELEMENTS.flatmap(lambda elements: hnp.arrays(np.float32, st.integers(1, max_size), elements=elements))


CASES = {
    "positive": [0.5, 1, 2, 3],
    "negative": [-3, -2.5, -1e-3],
    "both": [-1, 0, 2],
    "constant": [1.5] * 10,
    "negative constant": [-1.5] * 10,
    "zero": [0] * 5,
    "negative zero": [-0.0, 0.0],
    "tiny": [1e-30, 2e-30],
    "tiny and negative": [-1e-30, 1e-30],
    "smallest": [1e-45, -1e-45],
    "huge": [1e30, -1e30, 5e29],
    "largest": [3.4028235e38, -3.4028235e38],
    "tiny and huge": [1e-30, 1e30],
    "tiny and negative, and huge": [-1e-30, 1e30],
    "on the edges": [0.25, 0.5, 1, 2, 4, 8, -0.25, -8],
    "far from zero": [1e6, 1e6 + 1],
}


def build(*chunks):
    builder = HistogramBuilder()
    for chunk in chunks:
        builder.add(np.asarray(chunk, np.float32))
    return builder.build()


def counted_by_hand(values, histogram):
    """Counts values in the histogram's bins with exact arithmetic."""
    width = Fraction(histogram.hi) - Fraction(histogram.lo)
    width /= len(histogram.counts)
    bins = [(Fraction(float(value)) - Fraction(histogram.lo)) // width for value in values]
    assert all(0 <= index < len(histogram.counts) for index in bins)
    return np.bincount(np.array(bins, np.int64), minlength=len(histogram.counts))


def same(first, second):
    return first.to_json() == second.to_json()


def check(values, histogram):
    """Everything a histogram of `values` promises."""
    assert histogram.counts.sum() == len(values)
    assert histogram.min == float(values.min())
    assert histogram.max == float(values.max())
    assert len(histogram.counts) <= MAX_BINS
    assert histogram.lo <= min(0.0, histogram.min)
    assert histogram.hi >= max(0.0, histogram.max)
    assert np.frexp(histogram.width)[0] == 0.5  # a power of two
    assert (histogram.lo / histogram.width).is_integer()
    np.testing.assert_array_equal(histogram.counts, counted_by_hand(values, histogram))


# What it counts


@settings(max_examples=100, deadline=None)
@given(arrays())
def test_every_value_is_counted_in_its_own_bin(values):
    check(values, build(values))


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_every_value_of_a_special_case_is_counted_in_its_own_bin(values):
    values = np.array(values, np.float32)
    check(values, build(values))


@settings(max_examples=100, deadline=None)
@given(arrays(), st.integers(0, 1000))
def test_neither_order_nor_chunks_change_the_histogram(values, seed):
    random = np.random.default_rng(seed)
    cuts = np.sort(random.integers(1, len(values) + 1, random.integers(0, 5)))
    chunks = [chunk for chunk in np.split(random.permutation(values), cuts) if len(chunk)]
    assert same(build(*chunks), build(values))


@settings(max_examples=100, deadline=None)
@given(arrays(20), arrays(20))
@example(np.array([-1e-30], np.float32), np.array([1e30], np.float32))
@example(np.array([1e-30], np.float32), np.array([-1e30], np.float32))
@example(np.array([0.0], np.float32), np.array([-1e-45], np.float32))
def test_data_of_another_magnitude_gives_the_same_histogram_first_or_last(first, second):
    assert same(build(first, second), build(second, first))


@settings(max_examples=30, deadline=None)
@given(arrays(30))
def test_data_seen_twice_counts_twice(values):
    once, twice = build(values), build(values, values)
    np.testing.assert_array_equal(twice.counts, 2 * once.counts)
    assert (twice.lo, twice.hi, twice.min, twice.max) == (once.lo, once.hi, once.min, once.max)


def test_a_large_array_is_counted_as_its_pieces():
    values = np.random.default_rng(0).normal(size=(3, 200, 301)).astype(np.float32)  # blocks, the last not full
    whole = build(values)
    assert same(whole, build(*values))
    edges = whole.edges
    np.testing.assert_array_equal(whole.counts, np.histogram(values, edges)[0])
    assert whole.counts.sum() == values.size


def test_views_are_counted_as_copies():
    values = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
    views = [values[::2, ::3], values.T, values[..., ::-1], values[:, :1]]
    for view in views:
        assert same(build(view), build(np.ascontiguousarray(view)))


def test_adding_values_does_not_change_them():
    values = np.linspace(-1, 1, 100, dtype=np.float32)
    values.flags.writeable = False
    build(values)


# Its bins


@settings(max_examples=50, deadline=None)
@given(arrays(50))
def test_bins_are_as_fine_as_their_number_allows(values):
    histogram = build(values)
    if histogram.width > 2.0**-60:
        half = histogram.width / 2
        top, bottom = max(0.0, histogram.max), min(0.0, histogram.min)
        assert top // half - bottom // half >= MAX_BINS


def test_the_image_range_has_thousands_of_bins():
    for high in (1.0, 255.0, 6.3):
        assert len(build([0, high]).counts) > MAX_BINS // 2


def test_zero_is_an_edge():
    for values in CASES.values():
        histogram = build(values)
        assert 0.0 in histogram.edges


def test_edges_and_width_belong_together():
    histogram = build([-1, 0, 2])
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert (histogram.edges[0], histogram.edges[-1]) == (histogram.lo, histogram.hi)
    np.testing.assert_array_equal(np.diff(histogram.edges), histogram.width)


def test_a_positive_tensor_has_no_negative_bins():
    assert build([0.5, 3]).lo == 0
    assert build([0.0]).lo == 0


# What it refuses


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, -1])
def test_values_that_are_not_finite_are_refused(bad, where):
    values = np.linspace(-1, 1, 70_000, dtype=np.float32)
    values[where] = bad
    builder = HistogramBuilder()
    with pytest.raises(InputError, match=r"not finite; got .*(nan|inf).*expected finite float32"):
        builder.add(values)


def test_refused_values_leave_the_histogram_as_it_was():
    builder = HistogramBuilder()
    builder.add(np.array([1, 2], np.float32))
    before = builder.build()
    with pytest.raises(InputError):
        builder.add(np.array([5, np.nan], np.float32))
    assert same(builder.build(), before)


def test_a_histogram_of_nothing_is_refused():
    with pytest.raises(InputError, match="empty histogram"):
        HistogramBuilder().build()


# Adding after building


def test_a_histogram_that_was_built_does_not_change():
    builder = HistogramBuilder()
    builder.add(np.array([1, 2], np.float32))
    first = builder.build()
    before = first.to_json()
    builder.add(np.array([1, 2, 1000, -5], np.float32))
    assert first.to_json() == before
    assert builder.build().counts.sum() == 6


def test_memory_does_not_grow_with_the_data():
    values = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    builder = HistogramBuilder()
    builder.add(values[:100])
    tracemalloc.start()
    try:
        for scale in (1, 1e3, 1e-3, 1, 1):
            builder.add(values * np.float32(scale) if scale != 1 else values)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        builder.add(values)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000
    assert after <= held + 10_000
    assert peak - held < 500_000  # the data itself takes 4 MB


# JSON and its checks


@settings(max_examples=50, deadline=None)
@given(arrays(50))
def test_json_gives_back_the_same_histogram(values):
    histogram = build(values)
    assert same(Histogram.from_json(histogram.to_json()), histogram)
    assert Histogram.from_json(histogram.to_json()).counts.dtype == np.int64


@pytest.mark.parametrize(
    "change",
    [
        {"lo": 1.0},
        {"hi": -1.0},
        {"lo": 0.5, "min": 0.6},
        {"min": -2.0},
        {"max": 9.0},
        {"min": 3.0, "max": 1.0},
        {"lo": float("nan")},
        {"hi": float("inf")},
        {"min": float("-inf")},
        {"lo": 0.0, "min": 0.0, "max": 0.0, "hi": 0.0},
        {"counts": []},
        {"counts": 3},
        {"counts": [[1, 2]]},
        {"counts": [1, -1]},
    ],
    ids=str,
)
def test_inconsistent_histograms_are_refused(change):
    data = {"min": -0.5, "max": 2.0, "lo": -1.0, "hi": 2.0, "counts": [1, 2, 3]}
    Histogram.from_json(data)
    with pytest.raises(InputError, match="bad histogram"):
        Histogram.from_json({**data, **change})
