"""Gates: what an engine must keep before it is shipped, as users write it and as measurements are checked against it.

A gate compares the figure that was measured with its limit. An accuracy budget, which uses the same criteria, compares
the pessimistic end of the figure's 95% interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Drop, Parity
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.comparison import Comparison
from fcn_deploy.evaluation.truth import says_nothing

Measure = Literal["agreement", "error", "miou_drop"]

EXAMPLES = "agreement>=99% (or >=0.99), miou_drop<=0.3 (points) or error<=1e-4 (share of the logits' range)"
_TEXT = re.compile(r"\s*(\w+)\s*([<>]=?|=+)\s*([^\s%<>=]+)\s*(%?)\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


@dataclass(frozen=True)
class Criterion:
    """A measure and its limit; `str()` gives the text that `parse` reads.

    Attributes:
        measure: `agreement` (share of pixels with the same label; at least the limit), `error` (of the logits, as a
            share of their range; at most the limit) or `miou_drop` (points; at most the limit).
        limit: Above 0 and up to 1 for the agreement, 0..100 for the drop, 0 or more for the error.

    Raises:
        UsageError: The measure is unknown, or cannot have this limit.
    """

    measure: Measure
    limit: float

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise UsageError("unknown measure", got=repr(self.measure), expected=EXAMPLES)
        # Each condition is false for NaN.
        if self.measure == "agreement":
            self._require(0 < self.limit <= 1, "more than 0, and up to 1, which is 100%")
        elif self.measure == "miou_drop":
            self._require(0 <= self.limit <= 100, "0 to 100 points")
        else:
            self._require(0 <= self.limit < math.inf, "0 or more")

    def _require(self, fits: bool, expected: str) -> None:
        if not fits:
            raise UsageError(f"a limit that {self.measure} cannot have", got=self.limit, expected=expected)

    @classmethod
    def parse(cls, text: str) -> Criterion:
        """Reads a criterion such as `agreement>=99%`, `miou_drop<=0.3` or `error<=1e-4`; spaces do not matter.

        Raises:
            UsageError: `text` is not a criterion; the message shows examples.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise UsageError("not a criterion", got=repr(text), expected=EXAMPLES)
        measure, relation, number, percent = match.groups()
        if measure not in get_args(Measure):
            raise UsageError("unknown measure", got=repr(measure), expected=EXAMPLES)
        if not _NUMBER.fullmatch(number):
            raise UsageError(f"the limit of {measure} is not a number", got=repr(number), expected=EXAMPLES)
        if percent and measure != "agreement":
            raise UsageError(f"{measure} is not given in per cent", got=repr(text), expected=EXAMPLES)
        limit = Decimal(number)
        if measure == "agreement" and not percent and 1 < limit <= 100:
            fix = f"write agreement>={number}%"
            raise UsageError("an agreement of more than 1", got=repr(text), expected=EXAMPLES, fix=fix)
        if relation != _relation(measure):
            raise UsageError(
                f"{measure} is {'better' if measure == 'agreement' else 'worse'} the larger it is",
                got=repr(text),
                expected=f"{measure}{_relation(measure)}{number}{percent}",
            )
        return cls(measure, float(limit / 100 if percent else limit))  # type: ignore[arg-type]  # checked above

    def __str__(self) -> str:
        return f"{self.measure}{_relation(self.measure)}{self.limit_text}"

    @property
    def limit_text(self) -> str:
        """The limit as text: a percentage for the agreement."""
        shortest = repr(float(self.limit))  # the shortest text that reads back as the same float
        if self.measure == "agreement":
            return f"{(100 * Decimal(shortest)).normalize():f}%"
        return shortest.removesuffix(".0")

    def holds(self, value: float) -> bool:
        """Returns whether a value of the measure is on the good side of the limit; NaN is not."""
        return value >= self.limit if self.measure == "agreement" else value <= self.limit


def _relation(measure: str) -> str:
    return ">=" if measure == "agreement" else "<="


def measured(criterion: Criterion, comparison: Comparison) -> float:
    """Returns what a comparison found of the criterion's measure, in the unit of its limit.

    Raises:
        UsageError: The comparison lacks the measure: it had no labels, or no logits.
    """
    return _figure_and_bound(criterion, comparison)[0]


def bound(criterion: Criterion, comparison: Comparison) -> float:
    """Returns the pessimistic end of the 95% interval of the criterion's measure, over the images.

    That is the lower end of the agreement and the upper end of the drop. The error is its own bound: it is the largest
    error of any image, and no draw from the same images has a larger one.

    Returns:
        In the unit of the criterion's limit; NaN if there are fewer than two images, and so no interval.

    Raises:
        UsageError: The comparison lacks the measure.
    """
    return _figure_and_bound(criterion, comparison)[1]


def met(criterion: Criterion, comparison: Comparison) -> bool:
    """Returns whether even the pessimistic end of the interval is on the good side of the limit; NaN is not.

    Raises:
        UsageError: The comparison lacks the measure.
    """
    return criterion.holds(bound(criterion, comparison))


def _figure_and_bound(criterion: Criterion, comparison: Comparison) -> tuple[float, float]:
    parity, drop = comparison.parity, comparison.drop
    if criterion.measure == "agreement":
        return parity.agreement, parity.agreement_low
    if criterion.measure == "error":
        if parity.error is None:
            raise UsageError(
                f"{criterion} needs logits",
                got="labels only",
                expected="logits of both nets",
                fix='build with `io="tensor"`, or ask for agreement',
            )
        return parity.error, parity.error
    if drop is None:
        raise UsageError(
            f"{criterion} needs ground truth",
            expected="labels for each image",
            fix="name the images with `data` and their labels with `labels`, or ask for agreement",
        )
    return drop.points, drop.high


@dataclass(frozen=True)
class DefaultGate:
    """What an engine of a precision must keep if the user asks for nothing else.

    Attributes:
        agreement: Least share of pixels with the same label, 0..1.
        error: Largest relative error of the logits, if they can be compared; None for no such limit.
        miou_drop: Most mIoU points lost, if there are labels; None for no such limit.
        floor: Least agreement beside `miou_drop`, which counts instead of `agreement`: the mIoU does not show what
            happens to pixels that are not labelled.
    """

    agreement: float
    error: float | None = None
    miou_drop: float | None = None
    floor: float | None = None

    def criteria(self, comparison: Comparison) -> tuple[Criterion, ...]:
        """Returns the limits whose measure the comparison has."""
        if comparison.drop is not None and self.miou_drop is not None:
            criteria = [Criterion("miou_drop", self.miou_drop)]
            if self.floor is not None:
                criteria.append(Criterion("agreement", self.floor))
        else:
            criteria = [Criterion("agreement", self.agreement)]
        if comparison.parity.error is not None and self.error is not None:
            criteria.append(Criterion("error", self.error))
        return tuple(criteria)


DEFAULT_GATES = {
    "fp32": DefaultGate(agreement=0.9999, error=1e-4),
    "tf32": DefaultGate(agreement=0.995),
    "fp16": DefaultGate(agreement=0.995),
    "bf16": DefaultGate(agreement=0.99),
    "int8": DefaultGate(agreement=0.97, miou_drop=0.5, floor=0.95),
    "fp8": DefaultGate(agreement=0.97, miou_drop=0.5, floor=0.95),
}


@dataclass(frozen=True)
class GateOption:
    """A gate that a user asks for, in place of the default of its precision.

    Attributes:
        criterion: What an engine must keep.
        precision: Of the engine, a key of `DEFAULT_GATES`; None for the lowest that is built.

    Raises:
        UsageError: The precision is unknown.
    """

    criterion: Criterion
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in DEFAULT_GATES:
            expected = _one_of(DEFAULT_GATES)
            raise UsageError("a gate for an unknown precision", got=repr(self.precision), expected=expected)

    @classmethod
    def parse(cls, text: str) -> GateOption:
        """Reads `[PRECISION:]CRITERION`, such as `agreement>=98%` or `fp32:error<=1e-3`.

        Raises:
            UsageError: `text` is not a gate; the message shows examples.
        """
        precision, colon, criterion = text.rpartition(":")
        return cls(Criterion.parse(criterion), precision.strip() if colon else None)

    def __str__(self) -> str:
        return f"{self.precision}:{self.criterion}" if self.precision else str(self.criterion)


def gates_by_precision(
    gates: Iterable[GateOption], precisions: Sequence[str], not_measured: Mapping[str, str]
) -> dict[str, tuple[Criterion, ...]]:
    """Sorts gates by the precision they are for.

    Args:
        gates: As the user asked for them.
        precisions: Of the engines, the lowest last.
        not_measured: Measures that will not be taken, each with what the user can do about it.

    Returns:
        The criteria of each precision that has a gate of its own.

    Raises:
        UsageError: A gate is for a precision that is not built or a measure that is not taken, or two gates limit the
            same measure.
    """
    criteria: dict[str, dict[str, Criterion]] = {}
    for gate in gates:
        precision, criterion = gate.precision or precisions[-1], gate.criterion
        if precision not in precisions:
            raise UsageError("a gate for an engine that is not built", got=gate, expected=_one_of(precisions))
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
class GateResult:
    """The outcome of a gate.

    Attributes:
        gate: What was measured, the criteria and whether they hold, as the sidecar records it.
        failures: One phrase for each criterion that does not hold.
    """

    gate: Gate
    failures: tuple[str, ...]


def check_gate(
    precision: str, parity: Parity, drop: Drop | None = None, criteria: Sequence[Criterion] = ()
) -> GateResult:
    """Checks what was measured against the gate of a precision.

    Args:
        precision: A key of `DEFAULT_GATES`, such as `int8`.
        parity: Against the reference.
        drop: Of mIoU against the reference; None without labels.
        criteria: What the user asks for; if empty, the default gate of the precision counts.

    A gate that measured nothing has not passed: if both nets give one label everywhere, if logits are NaN or infinite,
    or if no pixel of the ground truth counts.

    Raises:
        UsageError: A criterion is about a measure that was not taken.
    """
    comparison = Comparison(parity, drop=drop)
    criteria = tuple(criteria) or DEFAULT_GATES[precision].criteria(comparison)
    failures = []
    # What labels say nothing about is no reason to pass; logits that were compared are one.
    nothing = says_nothing(parity)
    logits_count = parity.only_label is not None and any(each.measure == "error" for each in criteria)
    if nothing is not None and not logits_count:
        failures.append(nothing)
    for criterion in criteria:
        value = measured(criterion, comparison)
        unmeasured = nothing is not None and criterion.measure != "error"
        if not unmeasured and not criterion.holds(value):
            failures.append(_failure(criterion, value))
    points = drop.points if drop else None
    gate = Gate(parity.agreement, not failures, parity.error, points, tuple(map(str, criteria)))
    return GateResult(gate, tuple(failures))


def _failure(criterion: Criterion, value: float) -> str:
    limit = criterion.limit_text
    if math.isnan(value):
        what = "mIoU drop" if criterion.measure == "miou_drop" else criterion.measure
        return f"{what} was not measured, {'required' if criterion.measure == 'agreement' else 'allowed'} {limit}"
    if criterion.measure == "agreement":
        return f"agreement {value:.3%}, required {limit}"
    if criterion.measure == "miou_drop":
        return f"mIoU drops by {value:.3f} points, allowed {limit}"
    return f"error {value:.2e} of the logits' range, allowed {limit}"
