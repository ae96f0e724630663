import pytest

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.engines.tensorrt.profiles import DEFAULT, ImageProfile, pair_shapes, resolve_profiles
from fcn_deploy.errors import UsageError


def shapes(*texts):
    return [ImageShape.parse(text) for text in texts]


@pytest.mark.parametrize("texts", [("2x8x8", "1x8x8", "4x8x8"), ("8x8", "8x9", "9x8"), ("8x8", "4x8", "9x9")])
def test_a_profile_is_a_range_on_every_axis(texts):
    with pytest.raises(UsageError, match="min <= opt <= max"):
        ImageProfile(*shapes(*texts))


def test_the_nth_of_each_option_make_a_profile():
    profiles = pair_shapes(shapes("8x8", "64x64"), shapes("16x16", "64x96"), shapes("2x32x32", "64x128"))
    assert [profile.to_json() for profile in profiles] == [
        {"min": [1, 8, 8], "opt": [1, 16, 16], "max": [2, 32, 32]},
        {"min": [1, 64, 64], "opt": [1, 64, 96], "max": [1, 64, 128]},
    ]
    assert str(profiles[0]) == "1x8x8 to 2x32x32, tuned for 1x16x16"


def test_opt_alone_is_exactly_that_shape():
    (profile,) = pair_shapes([], shapes("360x480"), [])
    assert str(profile) == "1x360x480"
    assert profile.min == profile.max == ImageShape(1, 360, 480)
    assert pair_shapes([], [], []) == ()


@pytest.mark.parametrize(
    "counts",
    [
        ((), ("8x8",), ("9x9",)),
        (("8x8",), (), ("9x9",)),
        (("8x8",), ("8x8",), ()),
        (("8x8",), ("8x8", "9x9"), ("9x9",)),
    ],
)
def test_shapes_that_do_not_pair_are_refused(counts):
    with pytest.raises(UsageError, match=r"do not make profiles; got .* `min_shape`"):
        pair_shapes(*(shapes(*texts) for texts in counts))


def test_what_a_model_fixes_takes_its_place_in_the_default_only():
    assert resolve_profiles((), (None, None, None)) == (DEFAULT,)
    assert str(resolve_profiles((), (3, 16, 2048))[0]) == "3x16x2048"
    assert str(resolve_profiles((), (2, None, None))[0]) == "2x32x32 to 2x1024x1024, tuned for 2x512x512"
    asked = pair_shapes([], shapes("2x32x32"), [])
    assert resolve_profiles(asked, (2, None, None)) == asked
    with pytest.raises(UsageError, match="expected 1xanyxany"):
        resolve_profiles(asked, (1, None, None))
