import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.grouping import grouped


@given(sizes=st.lists(st.integers(1, 3), max_size=20), most=st.integers(1, 5))
def test_groups_hold_neighbours_of_one_size_in_order(sizes, most):
    groups = list(grouped(enumerate(sizes), most, lambda item: np.zeros((item[1], 2, 3), np.uint8)))
    assert [item for group in groups for item in group] == list(enumerate(sizes))
    assert all(0 < len(group) <= most and len({size for _, size in group}) == 1 for group in groups)
    for one, other in itertools.pairwise(groups):
        assert len(one) == most or one[0][1] != other[0][1]


def test_a_group_of_none_is_a_usage_error():
    with pytest.raises(UsageError, match="`batch` is too small; got 0"):
        next(grouped([np.zeros((1, 1, 3), np.uint8)], 0, lambda image: image))
