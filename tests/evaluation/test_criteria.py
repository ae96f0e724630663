import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.accuracy import Drop
from fcn_deploy.evaluation.comparison import Assessment
from fcn_deploy.evaluation.criteria import UNDERSTOOD, Criterion, bound, measured, met
from fcn_deploy.evaluation.parity import Parity

CRITERIA = st.one_of(
    st.builds(Criterion, st.just("agreement"), st.floats(0, 1, exclude_min=True)),
    st.builds(Criterion, st.just("miou_drop"), st.floats(0, 100)),
    st.builds(Criterion, st.just("error"), st.floats(0, 1e30)),
)
PARITY = Parity(9, 0.99, 2e-4, 60.0, 0.985, 0.995)
ASSESSMENT = Assessment(PARITY, drop=Drop(0.2, -0.1, 0.4))


# Text


@pytest.mark.parametrize(
    ("text", "measure", "limit", "canonical"),
    [
        ("agreement>=99%", "agreement", 0.99, "agreement>=99%"),
        ("agreement>=0.99", "agreement", 0.99, "agreement>=99%"),
        ("  agreement >= 99.99 % ", "agreement", 0.9999, "agreement>=99.99%"),
        ("agreement>=1", "agreement", 1.0, "agreement>=100%"),
        ("agreement>=100%", "agreement", 1.0, "agreement>=100%"),
        ("agreement>=.5", "agreement", 0.5, "agreement>=50%"),
        ("miou_drop<=0.3", "miou_drop", 0.3, "miou_drop<=0.3"),
        ("miou_drop <= 0", "miou_drop", 0.0, "miou_drop<=0"),
        ("error<=1e-4", "error", 1e-4, "error<=0.0001"),
        ("error<=2E-05", "error", 2e-5, "error<=2e-05"),
        ("error<=1.", "error", 1.0, "error<=1"),
    ],
)
def test_a_criterion_is_read_and_written(text, measure, limit, canonical):
    criterion = Criterion.parse(text)
    assert (criterion.measure, criterion.limit) == (measure, limit)
    assert str(criterion) == canonical


@settings(max_examples=300, deadline=None)
@given(CRITERIA)
def test_any_criterion_comes_back_from_its_text(criterion):
    assert Criterion.parse(str(criterion)) == criterion


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a criterion; got ''"),
        ("agreement", "not a criterion"),
        ("agreement>=", "not a criterion"),
        ("99%", "not a criterion"),
        ("agreement>=99%%", "not a criterion"),
        ("agreement>=99%, error<=1", "not a criterion"),
        ("mIoU>=60", "unknown measure; got 'mIoU'"),
        ("parity>=99%", "unknown measure; got 'parity'"),
        ("agreement>=high", "limit of agreement is not a number; got 'high'"),
        ("agreement>=nan", "limit of agreement is not a number; got 'nan'"),
        ("error<=inf", "limit of error is not a number; got 'inf'"),
        ("error<=0x1", "limit of error is not a number"),
        ("error<=1e99999999999", "limit of error is not a number"),
        ("agreement>=٩٩%", "limit of agreement is not a number"),
        ("miou_drop<=0.3%", "miou_drop is not given in per cent"),
        ("error>=1%", "error is not given in per cent"),
    ],
)
def test_what_is_not_understood_is_told_what_is(text, message):
    with pytest.raises(UsageError, match="expected " + UNDERSTOOD[:14]) as caught:
        Criterion.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agreement<=99%", "agreement>=99%"),
        ("agreement>0.99", "agreement>=0.99"),
        ("agreement=99%", "agreement>=99%"),
        ("miou_drop>=0.3", "miou_drop<=0.3"),
        ("error<1e-4", "error<=1e-4"),
        ("error==1e-4", "error<=1e-4"),
    ],
)
def test_the_wrong_direction_is_told_the_right_one(text, expected):
    with pytest.raises(UsageError) as caught:
        Criterion.parse(text)
    assert caught.value.expected == expected
    assert str(Criterion.parse(expected))


@pytest.mark.parametrize("relation", [">=", ">", "<="])
def test_an_agreement_that_lacks_its_per_cent_sign_is_told_all_that_is_wrong_at_once(relation):
    with pytest.raises(UsageError, match="an agreement of more than 1") as caught:
        Criterion.parse(f"agreement{relation}99.5")
    assert caught.value.fix == "write agreement>=99.5%"
    assert Criterion.parse(caught.value.fix.removeprefix("write ")).limit == 0.995


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agreement>=0", "more than 0"),
        ("agreement>=-5%", "more than 0"),
        ("agreement>=101%", "up to 1"),
        ("agreement>=101", "up to 1"),
        ("miou_drop<=-0.1", "0 to 100 points"),
        ("miou_drop<=101", "0 to 100 points"),
        ("error<=-1", "0 or more"),
        ("error<=1e999", "0 or more"),
    ],
)
def test_a_limit_that_the_measure_cannot_have_is_refused(text, expected):
    with pytest.raises(UsageError, match="a limit that") as caught:
        Criterion.parse(text)
    assert expected in caught.value.expected


@pytest.mark.parametrize("measure", ["agreement", "miou_drop", "error"])
@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf])
def test_no_limit_but_a_finite_one_can_be_made(measure, limit):
    with pytest.raises(UsageError, match="a limit that"):
        Criterion(measure, limit)


def test_no_measure_but_those_named_can_be_made():
    with pytest.raises(UsageError, match="unknown measure; got 'miou'"):
        Criterion("miou", 0.5)


# Holding a value against it


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [("agreement>=99%", 0.991, 0.989), ("miou_drop<=0.3", -2.0, 0.31), ("error<=1e-4", 0.0, math.inf)],
)
def test_a_criterion_knows_its_good_side_and_nan_is_on_neither(text, good, bad):
    criterion = Criterion.parse(text)
    assert criterion.holds(good)
    assert criterion.holds(criterion.limit)
    assert not criterion.holds(bad)
    assert not criterion.holds(math.nan)


@pytest.mark.parametrize(
    ("measure", "figure", "pessimistic"),
    [("agreement", 0.99, 0.985), ("miou_drop", 0.2, 0.4), ("error", 2e-4, 2e-4)],
)
def test_the_bound_is_the_pessimistic_end_of_the_interval(measure, figure, pessimistic):
    criterion = Criterion(measure, 0.5)
    assert measured(criterion, ASSESSMENT) == figure
    assert bound(criterion, ASSESSMENT) == pessimistic


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("agreement>=98.5%", True),
        ("agreement>=98.6%", False),  # though 99% was measured
        ("miou_drop<=0.4", True),
        ("miou_drop<=0.3", False),
        ("error<=2e-4", True),
        ("error<=1e-4", False),
    ],
)
def test_a_criterion_is_met_if_the_bound_is(text, outcome):
    assert met(Criterion.parse(text), ASSESSMENT) is outcome


@pytest.mark.parametrize("text", ["agreement>=1%", "miou_drop<=100"])
def test_one_image_meets_nothing(text):
    one = Assessment(Parity(1, 1.0), drop=Drop(0.0, math.nan, math.nan))
    assert math.isnan(bound(Criterion.parse(text), one))
    assert not met(Criterion.parse(text), one)


@pytest.mark.parametrize("of", [measured, bound, met])
def test_a_measure_that_was_not_taken_is_a_usage_error(of):
    bare = Assessment(Parity(9, 0.99))
    with pytest.raises(UsageError, match=r"miou_drop<=0\.5 needs ground truth.*--labels"):
        of(Criterion("miou_drop", 0.5), bare)
    with pytest.raises(UsageError, match=r"error<=0\.5 cannot be held against labels alone.*--io tensor"):
        of(Criterion("error", 0.5), bare)
