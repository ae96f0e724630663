"""The speed-up that a user requires of INT8, as a gate beside those of accuracy."""

from __future__ import annotations

import math
from dataclasses import replace

from fcn_deploy.artifacts.json import is_number
from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.gates import GateResult
from fcn_deploy.evaluation.latency import LEAST_ROUNDS, BenchmarkConfig


def check_required(speedup: object) -> None:
    """Checks a speed-up that is required.

    Raises:
        UsageError: It is not a finite number above 0.
    """
    if not is_number(speedup) or not 0 < speedup < math.inf:  # type: ignore[operator]  # NaN is refused as well
        expected = "a number above 0, such as 1.2: FP32's time over INT8's"
        raise UsageError("bad `require_speedup`", got=repr(speedup), expected=expected)


def check_rounds(config: BenchmarkConfig) -> None:
    """Checks that a speed-up will be measured: the median of a few rounds is hardly more than one of them.

    Raises:
        UsageError: There may be too few rounds.
    """
    if config.iterations < LEAST_ROUNDS:
        got = f"`require_speedup` with `iterations` {config.iterations}"
        raise UsageError("a speed-up is not measured in so few rounds", got=got, expected=f"{LEAST_ROUNDS} or more")


def check_speedup(result: GateResult, speedup: Ratio, required: float) -> GateResult:
    """Adds the speed-up to what an engine was checked against.

    As in every gate, the figure that was measured counts, which is the median over the rounds.

    Args:
        result: Of the gate of accuracy.
        speedup: The FP32 engine's time over that of the engine.
        required: At least so much.

    Returns:
        The outcome of both; it fails if one does. A speed-up that is NaN has failed.
    """
    enough = speedup.median >= required
    quartiles = "" if math.isnan(speedup.low) else f" (quartiles {speedup.low:.2f}-{speedup.high:.2f})"
    found = "was not measured" if math.isnan(speedup.median) else f"{speedup.median:.2f}x{quartiles}"
    failure = f"speed-up over FP32 {found}, required {required:g}x"
    gate = replace(
        result.gate,
        passed=result.gate.passed and enough,
        criteria=(*result.gate.criteria, f"speedup>={required:g}"),
        speedup=speedup.median,
    )
    return GateResult(gate, (*result.failures, *(() if enough else (failure,))))
