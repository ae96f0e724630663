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
        precision: `fp32`, `bf16` or `int8`.
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
        engines: Timed in turn; FP32 first, and each of a lower precision than the one before.
    """
    missed = [each.name for each in engines if not each.passed]
    if missed:
        met = [each.name for each in engines if each.passed]
        rest = f"; {_listed(met)} met {_gates(met)}, and can be deployed without it" if met else ""
        return Recommendation(None, f"no engine to ship: {_listed(missed)} missed {_gates(missed)}{rest}")
    fp32, *others = engines
    if not others:
        return Recommendation(fp32.file, "it is the only engine", ratio(fp32.timing, fp32.timing))
    if len(fp32.timing.latencies) < LEAST_ROUNDS:
        few = f"not known which engine to ship: each was timed {len(fp32.timing.latencies)} times"
        return Recommendation(None, f"{few}, and whether one is faster takes {LEAST_ROUNDS} rounds")
    best, beaten = fp32, list[str]()
    for each in others:
        against = ratio(each.timing, best.timing)
        if against.high < 1:
            best, beaten = each, []
        else:
            beaten.append(_not_faster(each, best, against))
    reasons = beaten if best is fp32 else [_fastest(best, ratio(best.timing, fp32.timing)), *beaten]
    return Recommendation(best.file, "; ".join(reasons), ratio(fp32.timing, best.timing))


def _not_faster(engine: Contender, best: Contender, against: Ratio) -> str:
    outcome = "slower" if against.low > 1 else "not faster"
    return f"{engine.name} is {outcome} than {best.name} here ({in_figures(against)})"


def _fastest(engine: Contender, against: Ratio) -> str:
    return f"{engine.name} meets its gate and is faster than FP32 ({in_figures(against)})"


def in_figures(found: Ratio) -> str:
    """Returns a ratio of times with its quartiles, if there are any: `1.08x the time, quartiles 1.02-1.15`."""
    quartiles = "" if math.isnan(found.low) else f", quartiles {found.low:.2f}-{found.high:.2f}"
    return f"{found.median:.2f}x the time{quartiles}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _gates(names: Sequence[str]) -> str:
    return "its gate" if len(names) == 1 else "their gates"
