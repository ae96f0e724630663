"""Which optimisation profile runs a shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.runtime.tensorrt.profiles import ShapeRange, choose_profile

SIZES = st.integers(1, 300)


@st.composite
def ranges(draw):
    low, best, high = zip(*(sorted(draw(st.tuples(SIZES, SIZES, SIZES))) for _ in range(3)), strict=True)
    return ShapeRange(low, best, high)


PROFILES = st.lists(ranges().map(lambda each: {"image": each}), min_size=1, max_size=5)
SHAPES = st.tuples(SIZES, SIZES, SIZES)


@given(PROFILES, SHAPES)
def test_the_chosen_profile_holds_the_shape_or_none_does(profiles, shape):
    holding = [
        all(low <= size <= high for low, size, high in zip(each["image"].min, shape, each["image"].max, strict=True))
        for each in profiles
    ]
    if not any(holding):
        with pytest.raises(InputError) as caught:
            choose_profile(profiles, {"image": shape})
        assert all(str(each["image"]) in str(caught.value) for each in profiles)
        return
    assert holding[choose_profile(profiles, {"image": shape})]


@given(PROFILES, st.data())
def test_a_shape_that_a_profile_was_tuned_for_is_run_by_one_tuned_for_it(profiles, data):
    shape = data.draw(st.sampled_from(profiles))["image"].opt
    chosen = choose_profile(profiles, {"image": shape})
    assert profiles[chosen]["image"].opt == shape


@given(PROFILES, SHAPES)
def test_no_other_profile_that_holds_the_shape_is_nearer_and_the_first_wins(profiles, shape):
    try:
        chosen = choose_profile(profiles, {"image": shape})
    except InputError:
        return
    holding = [index for index, profile in enumerate(profiles) if profile["image"].holds(shape)]
    distances = [profiles[index]["image"].distance(shape) for index in holding]
    assert chosen == holding[distances.index(min(distances))]


@given(ranges())
def test_twice_and_half_as_large_are_equally_far(ranges):
    doubled = tuple(2 * size for size in ranges.opt)
    assert ranges.distance(ranges.opt) == 0
    once = ShapeRange((1, 1, 1), doubled, (10_000,) * 3).distance(ranges.opt)
    back = ShapeRange((1, 1, 1), ranges.opt, (10_000,) * 3).distance(doubled)
    assert once == pytest.approx(back)


def test_every_input_must_fit():
    wide, narrow = ShapeRange((1,), (2,), (9,)), ShapeRange((1,), (1,), (1,))
    profiles = [{"a": wide, "b": narrow}, {"a": wide, "b": wide}]
    assert choose_profile(profiles, {"a": (5,), "b": (1,)}) == 0
    assert choose_profile(profiles, {"a": (5,), "b": (2,)}) == 1
    with pytest.raises(InputError, match="got a 5, b 10; expected a 1 to 9, tuned for 2, b 1 or a 1 to 9"):
        choose_profile(profiles, {"a": (5,), "b": (10,)})


@pytest.mark.parametrize("bad", [((2,), (1,), (3,)), ((1,), (4,), (3,)), ((1, 1), (1,), (1,))])
def test_what_is_no_range_is_refused(bad):
    with pytest.raises(ArtifactError, match="bad range of shapes"):
        ShapeRange(*bad)
