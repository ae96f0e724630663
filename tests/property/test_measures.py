"""No figure differs from scikit-learn's on the same pixels, whatever the truth holds and whatever is ignored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from fcn_deploy.evaluation.accuracy import (
    class_iou,
    confusion_matrix,
    frequency_weighted_iou,
    mean_iou,
    pixel_accuracy,
)
from fcn_deploy.evaluation.truth import TruthTally

RAW = 12  # values that a file of truth may hold
IGNORED = (-1, 40, 255, 300)  # what a class map may make of a value that does not count


@st.composite
def truths(draw):
    """Truth as files hold it, a map of its values to classes or to ignored values, and the labels of a net."""
    classes = draw(st.integers(2, 7))
    targets = st.one_of(st.integers(0, classes - 1), st.sampled_from(IGNORED))
    class_map = np.array(draw(st.lists(targets, min_size=RAW, max_size=RAW)))
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
    raw = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, RAW - 1)))
    share = draw(st.floats(0, 1))
    truth = class_map[raw]
    hidden = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < share
    truth[hidden] = draw(st.sampled_from(IGNORED))
    labels = draw(hnp.arrays(draw(st.sampled_from([np.uint8, np.int32])), shape, elements=st.integers(0, classes - 1)))
    return classes, truth.astype(np.int32), labels


@settings(max_examples=400, deadline=None)
@given(truths())
def test_figures_are_scikit_learns(sample):
    classes, truth, labels = sample
    matrix = confusion_matrix(truth, labels, classes, IGNORED)
    counted = ~np.isin(truth, IGNORED)
    wanted, given_ = truth[counted], labels[counted]
    if not counted.any():
        assert np.isnan([mean_iou(matrix), pixel_accuracy(matrix), frequency_weighted_iou(matrix)]).all()
        return
    names = tuple(map(str, range(classes)))
    iou = 100 * metrics.jaccard_score(wanted, given_, average=None, labels=range(classes), zero_division=0)
    neither = ~np.isin(np.arange(classes), np.union1d(wanted, given_))
    iou[neither] = np.nan
    np.testing.assert_allclose(class_iou(matrix), iou)
    assert mean_iou(matrix) == pytest.approx(np.nanmean(iou))
    assert pixel_accuracy(matrix) == pytest.approx(100 * metrics.accuracy_score(wanted, given_))
    weighted = metrics.jaccard_score(wanted, given_, average="weighted", labels=range(classes), zero_division=0)
    assert frequency_weighted_iou(matrix) == pytest.approx(100 * weighted)

    tally = TruthTally(names, IGNORED)
    tally.add(truth, [labels])
    found = tally.result()
    assert found.ignored == pytest.approx(1 - metrics.accuracy_score(np.ones(truth.size), counted.ravel()))
    assert set(found.absent) == {names[index] for index in range(classes) if not (wanted == index).any()}
    assert found.predicted_absent == {
        name: np.mean(labels == int(name)) for name in found.absent if (labels == int(name)).any()
    }
