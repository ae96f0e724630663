"""A required speed-up is a gate beside those of accuracy."""

import math

import pytest

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.evaluation.gates import GateResult
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.evaluation.speedup import check_required, check_rounds, check_speedup

MET = GateResult(Gate(0.98, True, criteria=("agreement>=97%",)), ())
MISSED = GateResult(Gate(0.9, False, criteria=("agreement>=97%",)), ("agreement 90.000%, required 97%",))


def test_the_median_counts_and_is_recorded():
    found = check_speedup(MET, Ratio(1.2, 1.1, 1.3), 1.2)
    assert found == GateResult(Gate(0.98, True, criteria=("agreement>=97%", "speedup>=1.2"), speedup=1.2), ())


def test_too_little_is_a_missed_gate_that_says_what_was_measured():
    found = check_speedup(MET, Ratio(0.926, 0.87, 0.98), 1.2)
    assert not found.gate.passed
    assert found.failures == ("speed-up over FP32 0.93x (quartiles 0.87-0.98), required 1.2x",)


def test_speed_makes_up_for_no_missed_accuracy():
    found = check_speedup(MISSED, Ratio(3.0, 2.9, 3.1), 1.2)
    assert (found.gate.passed, found.failures) == (False, MISSED.failures)
    both = check_speedup(MISSED, Ratio(1.0, 0.9, 1.1), 1.2)
    assert (both.gate.passed, len(both.failures)) == (False, 2)


def test_what_was_not_measured_has_not_passed():
    found = check_speedup(MET, Ratio(math.nan, math.nan, math.nan), 1.2)
    assert not found.gate.passed
    assert found.failures == ("speed-up over FP32 was not measured, required 1.2x",)


@pytest.mark.parametrize("required", [0, -1.2, math.nan, math.inf, "1.2", True])
def test_a_speedup_that_cannot_be_required_is_refused(required):
    with pytest.raises(UsageError, match="bad `require_speedup`"):
        check_required(required)


def test_any_number_above_0_may_be_required():
    for required in (0.5, 1, 1.2):
        check_required(required)


def test_a_few_rounds_measure_no_speedup():
    check_rounds(BenchmarkConfig(iterations=5))
    with pytest.raises(UsageError, match="`iterations` 4; expected 5 or more"):
        check_rounds(BenchmarkConfig(iterations=4))


def test_a_gate_without_a_sensible_speedup_is_an_input_error():
    for bad in ("1.2", -1, True):
        with pytest.raises(InputError, match="sidecar gate speedup"):
            Gate.from_json({"agreement": 1.0, "passed": True, "speedup": bad})
