"""Which engine to ship: the fastest that meets its gate, if it is faster beyond the scatter of the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.evaluation.latency import LEAST_ROUNDS, Timing, ratio


@dataclass(frozen=True, eq=False)
class Contender:
    """An engine that could be shipped.

    Attributes:
        file: The name of its file.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        passed: Whether it met its gate.
        timing: Its latencies, measured in turn with those of the others.
    """

    file: str
    precision: str
    passed: bool
    timing: Timing

    @property
    def name(self) -> str:
        """The precision as people write it."""
        return self.precision.upper()


def recommend(engines: Sequence[Contender]) -> Recommendation:
    """Returns which engine to ship.

    A lower precision costs accuracy, so it has to be faster: in three rounds of four, which is that the upper quartile
    of its time over that of the engine before it is below 1.

    Args:
        engines: Timed in turn; FP32 first, or FP16 if there is no FP32, and each of a lower precision than the one
            before.
    """
    missed = [each.name for each in engines if not each.passed]
    if missed:
        met = [each.name for each in engines if each.passed]
        rest = f"; {_listed(met)} met {_gates(met)}, and can be deployed without it" if met else ""
        return Recommendation(None, f"no engine to ship: {_listed(missed)} missed {_gates(missed)}{rest}")
    first, *others = engines
    if not others:
        return Recommendation(first.file, "it is the only engine", ratio(first.timing, first.timing))
    if len(first.timing.latencies) < LEAST_ROUNDS:
        few = f"not known which engine to ship: each was timed {len(first.timing.latencies)} times"
        return Recommendation(None, f"{few}, and whether one is faster takes {LEAST_ROUNDS} rounds")
    best, beaten = first, list[str]()
    for each in others:
        against = ratio(each.timing, best.timing)
        if against.high < 1:
            best, beaten = each, []
        else:
            beaten.append(_not_faster(each, best, against))
    reasons = beaten if best is first else [_fastest(best, first), *beaten]
    return Recommendation(best.file, "; ".join(reasons), ratio(first.timing, best.timing))


def recommend_among_passed(engines: Sequence[Contender]) -> Recommendation:
    """Returns which engine to ship if those that missed their gates are left out, and says which these are.

    Args:
        engines: As for `recommend`.
    """
    passed = [each for each in engines if each.passed]
    missed = [each.name for each in engines if not each.passed]
    if not missed or not passed:
        return recommend(engines)
    found = recommend(passed)
    reason = f"{_listed(missed)} missed {_gates(missed)}"
    if len(passed) > 1:
        return Recommendation(found.engine, f"{found.reason}; {reason}", found.speedup)
    baseline = ratio(engines[0].timing, passed[0].timing)
    return Recommendation(found.engine, f"{reason}, and {passed[0].name} met its own", baseline)


def _not_faster(engine: Contender, best: Contender, against: Ratio) -> str:
    outcome = "slower" if against.low > 1 else "not faster"
    return f"{engine.name} is {outcome} than {best.name} here ({in_figures(against)})"


def _fastest(engine: Contender, first: Contender) -> str:
    against = ratio(engine.timing, first.timing)
    return f"{engine.name} meets its gate and is faster than {first.name} ({in_figures(against)})"


def in_figures(found: Ratio) -> str:
    """Returns a ratio of times with its quartiles, if there are any: `1.08x the time, quartiles 1.02-1.15`."""
    quartiles = "" if math.isnan(found.low) else f", quartiles {found.low:.2f}-{found.high:.2f}"
    return f"{found.median:.2f}x the time{quartiles}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _gates(names: Sequence[str]) -> str:
    return "its gate" if len(names) == 1 else "their gates"
