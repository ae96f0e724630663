"""Labels of logits, of nets with a channel for each class and of binary nets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.runtime.labels import labels_of

FLOATS = st.floats(-10, 10, width=32)
SHAPES = st.tuples(st.integers(1, 3), st.just(1), *[st.integers(1, 5)] * 2)


def spec(classes, threshold=None):
    names = tuple(map(str, range(classes)))
    return ModelSpec(
        "net", None, None, classes, names, default_palette(classes), model="n:N", geometry=None, threshold=threshold
    )


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5), elements=FLOATS))
def test_the_label_is_the_first_class_with_the_largest_logit(logits):
    labels = labels_of(logits, spec(logits.shape[1]))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, logits.argmax(1))
    np.testing.assert_array_equal(labels_of(logits[0], spec(logits.shape[1])), labels[0])


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.just(1), *[st.integers(1, 5)] * 2), elements=FLOATS), FLOATS
)
def test_the_label_of_a_binary_net_is_1_above_the_threshold(values, threshold):
    labels = labels_of(values, spec(2, threshold))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, values[:, 0] > threshold)
    np.testing.assert_array_equal(labels_of(values[0], spec(2, threshold)), labels[0])


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.int32)])
def test_labels_of_more_than_256_classes_are_int32(classes, dtype):
    assert labels_of(np.zeros((classes, 2, 2), np.float32), spec(classes)).dtype == dtype
