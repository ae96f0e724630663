import pytest

from fcn_deploy.data.frames import Selection
from fcn_deploy.errors import UsageError


@pytest.mark.parametrize(
    ("selection", "total", "count"),
    [
        (Selection(), 7, 7),
        (Selection(3), 7, 3),
        (Selection(3), 6, 2),
        (Selection(3, 2), 7, 2),
        (Selection(most=9), 7, 7),
        (Selection(3, 2), None, None),
    ],
)
def test_it_says_how_many_frames_it_takes(selection, total, count):
    assert selection.count(total) == count
    if total is not None:
        assert len([index for index in range(total) if selection.takes(index)][: selection.most]) == count


@pytest.mark.parametrize(("options", "named"), [({"every": 0}, "every"), ({"most": 0}, "max_frames")])
def test_less_than_one_is_a_usage_error(options, named):
    with pytest.raises(UsageError, match=f"`{named}`; got 0"):
        Selection(**options)
