"""The entropy method against ONNX Runtime's own functions, on the same histograms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector

from fcn_deploy.artifacts.ranges import Histogram
from fcn_deploy.quantization.entropy import LEVELS, MAX_HALF_BINS, entropy, searched, two_sided
from fcn_deploy.quantization.methods import min_max, percentile
from tests.support.histograms import VALUES, histogram_of

# So many values that no share below cuts off a whole number of them: rounding would decide its side.
RANDOM = np.random.default_rng(3)
DRAWN = {
    "normal": RANDOM.normal(0, 1, 199_993),
    "laplace": RANDOM.laplace(0, 1, 199_993),
    "uniform": RANDOM.uniform(-1, 3, 199_993),
    "half normal, as after a ReLU": np.maximum(RANDOM.normal(-0.5, 1, 199_993), 0),
    "exponential": RANDOM.exponential(1, 199_993),
    "heavy tails": RANDOM.standard_t(2, 199_993).clip(-200, 200),
    "two humps": np.concatenate([RANDOM.normal(-3, 0.5, 100_000), RANDOM.normal(5, 1, 100_000)]),
}


def histogram_with(values, bins):
    """A histogram of at most so many bins on its longer side; ONNX Runtime's search is slow."""
    values = np.asarray(values, np.float32)
    full = histogram_of(values)
    width = full.width * max(1, 2 ** int(np.ceil(np.log2(max(-full.lo, full.hi) / full.width / bins))))
    lo, hi = np.floor(full.lo / width), np.ceil(full.hi / width)
    counts, _ = np.histogram(values, bins=int(hi - lo), range=(lo * width, hi * width))
    return Histogram(full.min, full.max, lo * width, hi * width, counts.astype(np.int64))


def collected(histogram):
    """The counts that are searched, as ONNX Runtime keeps them: with edges in float32, and what was seen."""
    counts, width, _ = searched(histogram)
    half = len(counts) // 2
    edges = (np.arange(-half, half + 1) * width).astype(np.float32)
    return counts, edges, np.float32(histogram.min), np.float32(histogram.max)


@pytest.mark.parametrize("name", DRAWN)
def test_entropy_is_onnx_runtimes_within_a_bin(name):
    histogram = histogram_with(DRAWN[name], 256)
    _, width, levels = searched(histogram)
    theirs = HistogramCollector("entropy", False, 128, levels, 99.99, None).get_entropy_threshold(
        collected(histogram), levels
    )
    ours = entropy(histogram)
    assert ours.lo == pytest.approx(min(0, float(theirs[0])), abs=1.001 * width)
    assert ours.hi == pytest.approx(max(0, float(theirs[1])), abs=1.001 * width)


@pytest.mark.parametrize("share", [99, 99.9, 99.99])
@pytest.mark.parametrize("name", DRAWN)
def test_percentile_is_onnx_runtimes_within_a_bin(name, share):
    histogram = histogram_with(DRAWN[name], 512)
    collector = HistogramCollector("percentile", False, 128, LEVELS, share, None)
    collector.histogram_dict = {
        "x": (
            histogram.counts,
            histogram.edges.astype(np.float32),
            np.float32(histogram.min),
            np.float32(histogram.max),
        )
    }
    low, high = collector.compute_percentile()["x"][:2]
    ours = percentile(histogram, share)
    assert ours.lo == pytest.approx(min(0, float(low)), abs=1.001 * histogram.width)
    assert ours.hi == pytest.approx(max(0, float(high)), abs=1.001 * histogram.width)


def test_zeros_after_a_relu_do_not_count():
    values = np.maximum(RANDOM.normal(0, 1, 300_000), 0)
    few, many = histogram_of(values[values > 0]), histogram_of(np.append(values, np.zeros(3_000_000)))
    assert entropy(many).hi == pytest.approx(entropy(few).hi, abs=2 * many.width)
    assert searched(many)[2] == 2 * LEVELS


def test_negative_values_give_the_mirror_image_of_positive_ones():
    values = np.abs(RANDOM.normal(0, 1, 100_000)).astype(np.float32) + np.float32(0.01)
    above, below = entropy(histogram_of(values)), entropy(histogram_of(-values))
    assert above.lo == below.hi == 0
    assert below.lo == pytest.approx(-above.hi, abs=2 * histogram_of(values).width)


def test_entropy_cuts_outliers_off():
    values = np.append(np.abs(RANDOM.normal(0, 1, 500_000)), [60.0, 80.0])
    assert 3 < entropy(histogram_of(values)).hi < 40


def test_entropy_of_few_bins_keeps_all_that_was_seen():
    histogram = Histogram(-1.0, 1.5, -2.0, 2.0, np.array([0, 5, 5, 3], np.int64))
    assert entropy(histogram) == min_max(histogram)


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_two_sided_counts_have_equally_many_bins_a_side_and_lose_no_count(values):
    histogram = histogram_of(values)
    counts, width = two_sided(histogram)
    assert len(counts) % 2 == 0
    assert len(counts) <= 2 * MAX_HALF_BINS
    assert counts.sum() == len(values)
    assert counts[: len(counts) // 2].sum() == (values < 0).sum()
    assert len(counts) // 2 * width >= max(-histogram.lo, histogram.hi)


@settings(max_examples=20, deadline=None)
@given(values=VALUES, exponent=st.integers(-8, 8))
def test_scaling_values_by_powers_of_two_scales_the_entropy_range(values, exponent):
    values = np.round(values, 2).astype(np.float32)
    scaled = entropy(histogram_of(values * np.float32(2.0**exponent)))
    plain = entropy(histogram_of(values))
    assert (scaled.lo, scaled.hi) == pytest.approx((plain.lo * 2.0**exponent, plain.hi * 2.0**exponent))
