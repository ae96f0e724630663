"""Gates: how much a precision may cost before an engine is not shipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fcn_deploy.artifacts.sidecar import Gate
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.accuracy import Drop
from fcn_deploy.evaluation.comparison import Assessment
from fcn_deploy.evaluation.criteria import Criterion, measured
from fcn_deploy.evaluation.parity import Parity


@dataclass(frozen=True)
class Thresholds:
    """What an engine must keep, unless other gates are asked for.

    Attributes:
        agreement: Least share of pixels labelled alike, 0..1.
        error: Largest relative error of the logits, where they can be compared; None for any.
        miou_drop: Most mIoU points lost, which counts instead of the agreement where there are labels; None for no
            such rule.
    """

    agreement: float
    error: float | None = None
    miou_drop: float | None = None


THRESHOLDS = {
    "fp32": Thresholds(agreement=0.9999, error=1e-4),
    "fp16": Thresholds(agreement=0.995),
    "int8": Thresholds(agreement=0.97, miou_drop=0.5),
}


@dataclass(frozen=True)
class AskedGate:
    """A gate that a user asks for in place of the thresholds.

    Attributes:
        criterion: What an engine must keep.
        precision: Of the engine, `fp32`, `fp16` or `int8`; None for the lowest there is.

    Raises:
        UsageError: There is no such precision.
    """

    criterion: Criterion
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in THRESHOLDS:
            raise UsageError("a gate for an unknown precision", got=repr(self.precision), expected=_one_of(THRESHOLDS))

    @classmethod
    def parse(cls, text: str) -> AskedGate:
        """Reads a gate such as `agreement>=98%` or, for one precision, `fp32:error<=1e-3`.

        Raises:
            UsageError: It is none; the message shows what is understood.
        """
        precision, colon, criterion = text.rpartition(":")
        return cls(Criterion.parse(criterion), precision.strip() if colon else None)

    def __str__(self) -> str:
        return f"{self.precision}:{self.criterion}" if self.precision else str(self.criterion)


def criteria_by_precision(
    gates: Iterable[AskedGate], precisions: Sequence[str], not_measured: Mapping[str, str]
) -> dict[str, tuple[Criterion, ...]]:
    """Sorts gates by the precision they are for.

    Args:
        gates: As asked for.
        precisions: Those of the engines, the lowest last.
        not_measured: Measures that the engines will not be held against, each with what the user can do about it.

    Returns:
        The criteria of each precision for which there is a gate.

    Raises:
        UsageError: A gate is for a precision or a measure that there is not, or there are two of one measure.
    """
    criteria: dict[str, dict[str, Criterion]] = {}
    for gate in gates:
        precision, criterion = gate.precision or precisions[-1], gate.criterion
        if precision not in precisions:
            raise UsageError("a gate for an engine that there is not", got=gate, expected=_one_of(precisions))
        if criterion.measure in not_measured:
            fix = not_measured[criterion.measure]
            raise UsageError(f"a gate on {criterion.measure}, which is not measured here", got=gate, fix=fix)
        of_precision = criteria.setdefault(precision, {})
        if criterion.measure in of_precision:
            got = f"{of_precision[criterion.measure]} and {criterion}"
            raise UsageError(f"two gates on the {criterion.measure} of {precision}", got=got, fix="name one of them")
        of_precision[criterion.measure] = criterion
    return {precision: tuple(each.values()) for precision, each in criteria.items()}


def _one_of(names: Iterable[str]) -> str:
    return " or ".join(names)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a gate.

    Attributes:
        gate: As the sidecar records it.
        failures: One phrase for each threshold that was missed.
    """

    gate: Gate
    failures: tuple[str, ...]


def judge(precision: str, parity: Parity, drop: Drop | None = None, criteria: Sequence[Criterion] = ()) -> Verdict:
    """Holds what was measured against the gates of a precision.

    Args:
        precision: `fp32`, `fp16` or `int8`.
        parity: Against the reference.
        drop: Of mIoU against the reference, where there are labels.
        criteria: What counts in place of the thresholds of the precision; none: the thresholds.

    Raises:
        UsageError: A criterion is of a measure that was not taken.
    """
    assessment = Assessment(parity, drop=drop)
    criteria = tuple(criteria) or _default_criteria(THRESHOLDS[precision], assessment)
    failures = []
    for criterion in criteria:
        value = measured(criterion, assessment)
        if not criterion.holds(value):
            failures.append(_failure(criterion, value))
    points = drop.points if drop else None
    gate = Gate(parity.agreement, not failures, parity.error, points, tuple(map(str, criteria)))
    return Verdict(gate, tuple(failures))


def _default_criteria(limits: Thresholds, assessment: Assessment) -> tuple[Criterion, ...]:
    """Those thresholds that what was measured can be held against."""
    if assessment.drop is not None and limits.miou_drop is not None:
        criteria = [Criterion("miou_drop", limits.miou_drop)]
    else:
        criteria = [Criterion("agreement", limits.agreement)]
    if assessment.parity.error is not None and limits.error is not None:
        criteria.append(Criterion("error", limits.error))
    return tuple(criteria)


def _failure(criterion: Criterion, value: float) -> str:
    limit = criterion.limit_text
    if criterion.measure == "agreement":
        return f"agreement {value:.3%}, required {limit}"
    if criterion.measure == "miou_drop":
        return f"mIoU drops by {value:.3f} points, allowed {limit}"
    return f"error {value:.2e} of the logits' range, allowed {limit}"
