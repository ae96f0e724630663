import math

import pytest

from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.accuracy import Drop
from fcn_deploy.evaluation.criteria import Criterion
from fcn_deploy.evaluation.gates import THRESHOLDS, AskedGate, criteria_by_precision, judge
from fcn_deploy.evaluation.parity import Parity


def drop(points):
    return Drop(points, points - 0.1, points + 0.1)


def test_the_thresholds_are_those_of_the_contract():
    assert (THRESHOLDS["fp32"].agreement, THRESHOLDS["fp32"].error) == (0.9999, 1e-4)
    assert (THRESHOLDS["fp16"].agreement, THRESHOLDS["fp16"].error) == (0.995, None)
    assert (THRESHOLDS["int8"].agreement, THRESHOLDS["int8"].miou_drop) == (0.97, 0.5)
    assert THRESHOLDS["fp32"].miou_drop is THRESHOLDS["fp16"].miou_drop is THRESHOLDS["int8"].error is None


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
def test_the_agreement_decides(precision, agreement, passed):
    verdict = judge(precision, Parity(3, agreement))
    assert verdict.gate.passed is passed
    assert verdict.gate.agreement is agreement
    assert len(verdict.failures) == (not passed)
    if not passed:
        assert "agreement" in verdict.failures[0]
        assert "required" in verdict.failures[0]


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
def test_the_error_decides_for_fp32_alone(precision, error, passed):
    verdict = judge(precision, Parity(3, 1.0, error, 40.0))
    assert verdict.gate.passed is passed
    assert verdict.gate.error is error
    if not passed:
        assert verdict.failures[0].startswith("error ")


def test_every_miss_is_listed():
    verdict = judge("fp32", Parity(3, 0.5, 0.25, 3.0))
    assert verdict.failures == (
        "agreement 50.000%, required 99.99%",
        "error 2.50e-01 of the logits' range, allowed 0.0001",
    )


@pytest.mark.parametrize(
    ("agreement", "points", "passed"),
    [
        (0.5, 0.5, True),
        (0.5, -3.0, True),
        (1.0, 0.51, False),
        (1.0, math.nan, False),
    ],
)
def test_with_labels_the_miou_of_int8_counts_instead_of_the_agreement(agreement, points, passed):
    verdict = judge("int8", Parity(3, agreement), drop(points))
    assert verdict.gate.passed is passed
    assert verdict.gate.miou_drop is points
    if not passed:
        assert verdict.failures[0].startswith("mIoU drops by")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_with_labels_the_agreement_still_counts_for_float(precision):
    assert not judge(precision, Parity(3, 0.9), drop(-1.0)).gate.passed
    verdict = judge(precision, Parity(3, 1.0), drop(5.0))
    assert verdict.gate.passed
    assert verdict.gate.miou_drop == 5.0


def test_without_labels_the_gate_records_no_drop():
    assert judge("int8", Parity(3, 1.0)).gate.miou_drop is None


@pytest.mark.parametrize(
    ("precision", "error", "dropped", "criteria"),
    [
        ("fp32", None, None, ("agreement>=99.99%",)),
        ("fp32", 0.0, None, ("agreement>=99.99%", "error<=0.0001")),
        ("fp32", 0.0, 0.0, ("agreement>=99.99%", "error<=0.0001")),
        ("fp16", 0.0, None, ("agreement>=99.5%",)),
        ("int8", 0.0, None, ("agreement>=97%",)),
        ("int8", 0.0, 0.0, ("miou_drop<=0.5",)),
    ],
)
def test_the_gate_records_what_counted(precision, error, dropped, criteria):
    verdict = judge(precision, Parity(3, 1.0, error), None if dropped is None else drop(dropped))
    assert verdict.gate.criteria == criteria


# Gates asked for


def asked(*texts):
    return [AskedGate.parse(text) for text in texts]


def test_criteria_count_in_place_of_all_thresholds():
    parity = Parity(3, 0.9, 0.25, 3.0)
    verdict = judge("fp32", parity, criteria=(Criterion("agreement", 0.9),))
    assert verdict.gate.passed
    assert verdict.gate.criteria == ("agreement>=90%",)
    verdict = judge("int8", parity, drop(0.3), (Criterion("miou_drop", 0.2), Criterion("agreement", 0.95)))
    assert verdict.failures == (
        "mIoU drops by 0.300 points, allowed 0.2",
        "agreement 90.000%, required 95%",
    )
    assert not verdict.gate.passed


def test_a_gate_judges_what_was_measured_and_not_the_end_of_its_interval():
    parity = Parity(3, 0.99, agreement_low=0.9, agreement_high=1.0)
    assert judge("int8", parity, criteria=(Criterion("agreement", 0.985),)).gate.passed


def test_a_criterion_that_cannot_be_judged_is_not_passed_over():
    with pytest.raises(UsageError, match="needs ground truth"):
        judge("int8", Parity(3, 1.0), criteria=(Criterion("miou_drop", 0.5),))


@pytest.mark.parametrize(
    ("text", "precision", "criterion", "canonical"),
    [
        ("agreement>=98%", None, Criterion("agreement", 0.98), "agreement>=98%"),
        ("fp32:error<=1e-3", "fp32", Criterion("error", 1e-3), "fp32:error<=0.001"),
        (" int8 : miou_drop <= 0.3 ", "int8", Criterion("miou_drop", 0.3), "int8:miou_drop<=0.3"),
    ],
)
def test_a_gate_is_read_and_written(text, precision, criterion, canonical):
    gate = AskedGate.parse(text)
    assert gate == AskedGate(criterion, precision)
    assert str(gate) == canonical
    assert AskedGate.parse(canonical) == gate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int4:agreement>=98%", "unknown precision; got 'int4'; expected fp32 or fp16 or int8"),
        (":agreement>=98%", "unknown precision; got ''"),
        ("fp32:fp16:agreement>=98%", "unknown precision; got 'fp32:fp16'"),
        ("int8:", "not a criterion"),
        ("int8:agreement>=98", "write agreement>=98%"),
    ],
)
def test_what_is_no_gate_is_a_usage_error(text, message):
    with pytest.raises(UsageError, match=message):
        AskedGate.parse(text)


def test_a_gate_without_a_precision_is_for_the_lowest():
    gates = asked("agreement>=98%", "fp32:error<=1e-3", "int8:miou_drop<=0.3")
    assert criteria_by_precision(gates, ("fp32", "int8"), {}) == {
        "int8": (Criterion("agreement", 0.98), Criterion("miou_drop", 0.3)),
        "fp32": (Criterion("error", 1e-3),),
    }
    assert criteria_by_precision(gates[:2], ("fp32",), {}) == {
        "fp32": (Criterion("agreement", 0.98), Criterion("error", 1e-3))
    }
    assert criteria_by_precision((), ("fp32", "int8"), {"error": "no"}) == {}


def test_a_gate_for_what_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"an engine that there is not; got int8:agreement>=98%; expected fp32$"):
        criteria_by_precision(asked("int8:agreement>=98%"), ("fp32",), {})


def test_a_gate_on_what_is_not_measured_is_refused_with_what_would_help():
    with pytest.raises(
        UsageError, match=r"on miou_drop, which is not measured.*got fp32:miou_drop<=1; fix: add labels$"
    ):
        criteria_by_precision(
            asked("agreement>=1%", "fp32:miou_drop<=1"), ("fp32", "int8"), {"miou_drop": "add labels"}
        )


def test_two_limits_for_one_measure_are_refused():
    with pytest.raises(UsageError, match="two gates on the agreement of int8; got agreement>=98% and agreement>=99%"):
        criteria_by_precision(asked("agreement>=98%", "int8:agreement>=99%"), ("fp32", "int8"), {})
