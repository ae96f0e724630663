import math

import pytest

from fcn_deploy.evaluate.accuracy import Drop
from fcn_deploy.evaluate.gates import THRESHOLDS, judge
from fcn_deploy.evaluate.parity import Parity


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
        "error 2.50e-01 of the logits' range, allowed 1e-04",
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
