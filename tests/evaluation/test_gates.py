import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.measures import Drop, Parity
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.comparison import Comparison
from fcn_deploy.evaluation.gates import (
    DEFAULT_GATES,
    EXAMPLES,
    Criterion,
    GateOption,
    bound,
    check_gate,
    gates_by_precision,
    measured,
    met,
)

CRITERIA = st.one_of(
    st.builds(Criterion, st.just("agreement"), st.floats(0, 1, exclude_min=True)),
    st.builds(Criterion, st.just("miou_drop"), st.floats(0, 100)),
    st.builds(Criterion, st.just("error"), st.floats(0, 1e30)),
)
PARITY = Parity(9, 0.99, 2e-4, 60.0, 0.985, 0.995)
COMPARISON = Comparison(PARITY, drop=Drop(0.2, -0.1, 0.4))


# Criteria as text


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
def test_a_text_that_is_not_a_criterion_is_refused_with_examples(text, message):
    with pytest.raises(UsageError, match="expected " + EXAMPLES[:14]) as caught:
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
def test_a_criterion_in_the_wrong_direction_is_refused_with_the_right_one(text, expected):
    with pytest.raises(UsageError) as caught:
        Criterion.parse(text)
    assert caught.value.expected == expected
    assert str(Criterion.parse(expected))


@pytest.mark.parametrize("relation", [">=", ">", "<="])
def test_an_agreement_without_its_per_cent_sign_is_refused_with_all_that_is_wrong_at_once(relation):
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
def test_a_criterion_needs_a_finite_limit(measure, limit):
    with pytest.raises(UsageError, match="a limit that"):
        Criterion(measure, limit)


def test_a_criterion_needs_a_known_measure():
    with pytest.raises(UsageError, match="unknown measure; got 'miou'"):
        Criterion("miou", 0.5)


# Criteria and what was measured


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [("agreement>=99%", 0.991, 0.989), ("miou_drop<=0.3", -2.0, 0.31), ("error<=1e-4", 0.0, math.inf)],
)
def test_a_criterion_holds_on_the_good_side_of_its_limit_and_not_for_nan(text, good, bad):
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
    assert measured(criterion, COMPARISON) == figure
    assert bound(criterion, COMPARISON) == pessimistic


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
    assert met(Criterion.parse(text), COMPARISON) is outcome


@pytest.mark.parametrize("text", ["agreement>=1%", "miou_drop<=100"])
def test_one_image_meets_no_criterion(text):
    one = Comparison(Parity(1, 1.0), drop=Drop(0.0, math.nan, math.nan))
    assert math.isnan(bound(Criterion.parse(text), one))
    assert not met(Criterion.parse(text), one)


@pytest.mark.parametrize("of", [measured, bound, met])
def test_a_measure_that_was_not_taken_is_a_usage_error(of):
    bare = Comparison(Parity(9, 0.99))
    with pytest.raises(UsageError, match=r"miou_drop<=0\.5 needs ground truth.*`labels`"):
        of(Criterion("miou_drop", 0.5), bare)
    with pytest.raises(UsageError, match=r'error<=0\.5 needs logits.*`io="tensor"`'):
        of(Criterion("error", 0.5), bare)


# Default gates


def drop(points):
    return Drop(points, points - 0.1, points + 0.1)


def test_the_default_gates_are_those_of_the_contract():
    assert (DEFAULT_GATES["fp32"].agreement, DEFAULT_GATES["fp32"].error) == (0.9999, 1e-4)
    assert (DEFAULT_GATES["fp16"].agreement, DEFAULT_GATES["fp16"].error) == (0.995, None)
    assert (DEFAULT_GATES["int8"].agreement, DEFAULT_GATES["int8"].miou_drop) == (0.97, 0.5)
    assert DEFAULT_GATES["int8"].floor == 0.95
    assert DEFAULT_GATES["fp32"].miou_drop is DEFAULT_GATES["fp16"].miou_drop is DEFAULT_GATES["int8"].error is None


@pytest.mark.parametrize(
    ("precision", "agreement", "passed"),
    [
        ("fp32", 1.0, True),
        ("fp32", 0.9999, True),
        ("fp32", 0.99989, False),
        ("fp16", 0.995, True),
        ("fp16", 0.9949, False),
        ("int8", 0.97, True),
        ("int8", 0.9699, False),
        ("int8", math.nan, False),
    ],
)
def test_by_default_the_agreement_decides(precision, agreement, passed):
    result = check_gate(precision, Parity(3, agreement))
    assert result.gate.passed is passed
    assert result.gate.agreement is agreement
    assert len(result.failures) == (not passed)
    if not passed:
        assert "agreement" in result.failures[0]
        assert "required" in result.failures[0]


@pytest.mark.parametrize(
    ("precision", "error", "passed"),
    [
        ("fp32", 0.0, True),
        ("fp32", 1e-4, True),
        ("fp32", 1.01e-4, False),
        ("fp32", math.inf, False),
        ("fp32", math.nan, False),
        ("fp32", None, True),
        ("fp16", 0.5, True),
        ("int8", 0.5, True),
    ],
)
def test_by_default_the_error_decides_for_fp32_alone(precision, error, passed):
    result = check_gate(precision, Parity(3, 1.0, error, 40.0))
    assert result.gate.passed is passed
    assert result.gate.error is error
    if not passed:
        assert result.failures[0].startswith("error ")


def test_a_failed_gate_lists_every_criterion_that_does_not_hold():
    result = check_gate("fp32", Parity(3, 0.5, 0.25, 3.0))
    assert result.failures == (
        "agreement 50.000%, required 99.99%",
        "error 2.50e-01 of the logits' range, allowed 0.0001",
    )


@pytest.mark.parametrize(
    ("agreement", "points", "failures"),
    [
        (0.95, 0.5, ()),
        (0.95, -3.0, ()),
        (1.0, 0.51, ("mIoU drops by 0.510 points, allowed 0.5",)),
        (1.0, math.nan, ("mIoU drop was not measured, allowed 0.5",)),
        (0.5, 0.0, ("agreement 50.000%, required 95%",)),
        (0.9499, -3.0, ("agreement 94.990%, required 95%",)),
    ],
)
def test_with_labels_int8_must_keep_the_miou_and_a_floor_of_agreement(agreement, points, failures):
    result = check_gate("int8", Parity(3, agreement), drop(points))
    assert result.failures == failures
    assert result.gate.passed is (failures == ())
    assert result.gate.miou_drop is points


ONE_LABEL = Parity(3, 1.0, only_label=2)


@pytest.mark.parametrize("precision", DEFAULT_GATES)
@pytest.mark.parametrize("dropped", [None, 0.0])
@pytest.mark.parametrize("criteria", [(), (Criterion("agreement", 0.5),)])
def test_a_gate_on_one_label_everywhere_measured_nothing_and_has_not_passed(precision, dropped, criteria):
    result = check_gate(precision, ONE_LABEL, None if dropped is None else drop(dropped), criteria)
    assert not result.gate.passed
    assert result.failures == ("agreement says nothing: both nets give label 2 at every pixel",)


def test_logits_that_were_compared_are_a_measurement_even_of_one_label():
    assert check_gate("fp32", Parity(3, 1.0, 1e-6, 90.0, only_label=0)).gate.passed
    assert check_gate("fp32", Parity(3, 1.0, 0.1, 90.0, only_label=0)).failures == (
        "error 1.00e-01 of the logits' range, allowed 0.0001",
    )


def test_logits_that_are_not_finite_fail_every_gate_and_are_named():
    broken = Parity(3, math.nan, math.inf, engine_not_finite=2)
    result = check_gate("int8", broken, criteria=(Criterion("agreement", 0.01),))
    assert result.failures == ("logits of the engine are NaN or infinite on 2 of 3 images",)
    assert not result.gate.passed


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_with_labels_the_agreement_still_counts_for_float(precision):
    assert not check_gate(precision, Parity(3, 0.9), drop(-1.0)).gate.passed
    result = check_gate(precision, Parity(3, 1.0), drop(5.0))
    assert result.gate.passed
    assert result.gate.miou_drop == 5.0


def test_without_labels_the_gate_records_no_drop():
    assert check_gate("int8", Parity(3, 1.0)).gate.miou_drop is None


@pytest.mark.parametrize(
    ("precision", "error", "dropped", "criteria"),
    [
        ("fp32", None, None, ("agreement>=99.99%",)),
        ("fp32", 0.0, None, ("agreement>=99.99%", "error<=0.0001")),
        ("fp32", 0.0, 0.0, ("agreement>=99.99%", "error<=0.0001")),
        ("fp16", 0.0, None, ("agreement>=99.5%",)),
        ("int8", 0.0, None, ("agreement>=97%",)),
        ("int8", 0.0, 0.0, ("miou_drop<=0.5", "agreement>=95%")),
    ],
)
def test_a_gate_records_the_criteria_that_counted(precision, error, dropped, criteria):
    result = check_gate(precision, Parity(3, 1.0, error), None if dropped is None else drop(dropped))
    assert result.gate.criteria == criteria


# Gates that the user asks for


def options(*texts):
    return [GateOption.parse(text) for text in texts]


def test_criteria_count_in_place_of_the_whole_default_gate():
    parity = Parity(3, 0.9, 0.25, 3.0)
    result = check_gate("fp32", parity, criteria=(Criterion("agreement", 0.9),))
    assert result.gate.passed
    assert result.gate.criteria == ("agreement>=90%",)
    result = check_gate("int8", parity, drop(0.3), (Criterion("miou_drop", 0.2), Criterion("agreement", 0.95)))
    assert result.failures == (
        "mIoU drops by 0.300 points, allowed 0.2",
        "agreement 90.000%, required 95%",
    )
    assert not result.gate.passed


def test_a_gate_checks_what_was_measured_and_not_the_end_of_its_interval():
    parity = Parity(3, 0.99, agreement_low=0.9, agreement_high=1.0)
    assert check_gate("int8", parity, criteria=(Criterion("agreement", 0.985),)).gate.passed


def test_a_criterion_whose_measure_was_not_taken_is_a_usage_error_of_the_gate():
    with pytest.raises(UsageError, match="needs ground truth"):
        check_gate("int8", Parity(3, 1.0), criteria=(Criterion("miou_drop", 0.5),))


@pytest.mark.parametrize(
    ("text", "precision", "criterion", "canonical"),
    [
        ("agreement>=98%", None, Criterion("agreement", 0.98), "agreement>=98%"),
        ("fp32:error<=1e-3", "fp32", Criterion("error", 1e-3), "fp32:error<=0.001"),
        (" int8 : miou_drop <= 0.3 ", "int8", Criterion("miou_drop", 0.3), "int8:miou_drop<=0.3"),
    ],
)
def test_a_gate_option_is_read_and_written(text, precision, criterion, canonical):
    gate = GateOption.parse(text)
    assert gate == GateOption(criterion, precision)
    assert str(gate) == canonical
    assert GateOption.parse(canonical) == gate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int4:agreement>=98%", "unknown precision; got 'int4'; expected fp32 or tf32 or fp16 or bf16 or int8 or fp8"),
        (":agreement>=98%", "unknown precision; got ''"),
        ("fp32:fp16:agreement>=98%", "unknown precision; got 'fp32:fp16'"),
        ("int8:", "not a criterion"),
        ("int8:agreement>=98", "write agreement>=98%"),
    ],
)
def test_a_text_that_is_not_a_gate_option_is_a_usage_error(text, message):
    with pytest.raises(UsageError, match=message):
        GateOption.parse(text)


def test_a_gate_option_without_a_precision_is_for_the_lowest():
    gates = options("agreement>=98%", "fp32:error<=1e-3", "int8:miou_drop<=0.3")
    assert gates_by_precision(gates, ("fp32", "int8"), {}) == {
        "int8": (Criterion("agreement", 0.98), Criterion("miou_drop", 0.3)),
        "fp32": (Criterion("error", 1e-3),),
    }
    assert gates_by_precision(gates[:2], ("fp32",), {}) == {
        "fp32": (Criterion("agreement", 0.98), Criterion("error", 1e-3))
    }
    assert gates_by_precision((), ("fp32", "int8"), {"error": "no"}) == {}


def test_a_gate_option_for_an_engine_that_is_not_built_is_refused():
    with pytest.raises(UsageError, match=r"an engine that is not built; got int8:agreement>=98%; expected fp32$"):
        gates_by_precision(options("int8:agreement>=98%"), ("fp32",), {})


def test_a_gate_option_on_what_is_not_measured_is_refused_with_what_would_help():
    with pytest.raises(
        UsageError, match=r"on miou_drop, which is not measured.*got fp32:miou_drop<=1; fix: add labels$"
    ):
        gates_by_precision(options("agreement>=1%", "fp32:miou_drop<=1"), ("fp32", "int8"), {"miou_drop": "add labels"})


def test_two_gate_options_for_one_measure_are_refused():
    with pytest.raises(UsageError, match="two gates on the agreement of int8; got agreement>=98% and agreement>=99%"):
        gates_by_precision(options("agreement>=98%", "int8:agreement>=99%"), ("fp32", "int8"), {})
