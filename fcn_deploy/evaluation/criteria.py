"""Criteria: what an engine must keep, as users write it (`agreement>=99%`) and as assessments are held against it.

A gate holds the figure that was measured against the limit, an accuracy budget the pessimistic end of its 95% interval.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.comparison import Assessment

Measure = Literal["agreement", "error", "miou_drop"]

UNDERSTOOD = "agreement>=99% (or >=0.99), miou_drop<=0.3 (points) or error<=1e-4 (share of the logits' range)"
_TEXT = re.compile(r"\s*(\w+)\s*([<>]=?|=+)\s*([^\s%<>=]+)\s*(%?)\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


@dataclass(frozen=True)
class Criterion:
    """A measure and its limit; `str()` gives the text that `parse` reads.

    Attributes:
        measure: `agreement` (share of pixels labelled alike; no less than the limit), `error` (of the logits, as a
            share of their range; no more) or `miou_drop` (points; no more).
        limit: Above 0 and up to 1 for the agreement, 0..100 for the drop, 0 or more for the error.

    Raises:
        UsageError: There is no such measure, or the limit is none of it.
    """

    measure: Measure
    limit: float

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise UsageError("unknown measure", got=repr(self.measure), expected=UNDERSTOOD)
        # Ranges that NaN is not in.
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
            UsageError: It is none; the message shows what is understood.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise UsageError("not a criterion", got=repr(text), expected=UNDERSTOOD)
        measure, relation, number, percent = match.groups()
        if measure not in get_args(Measure):
            raise UsageError("unknown measure", got=repr(measure), expected=UNDERSTOOD)
        if not _NUMBER.fullmatch(number):
            raise UsageError(f"the limit of {measure} is not a number", got=repr(number), expected=UNDERSTOOD)
        if percent and measure != "agreement":
            raise UsageError(f"{measure} is not given in per cent", got=repr(text), expected=UNDERSTOOD)
        limit = Decimal(number)
        if measure == "agreement" and not percent and 1 < limit <= 100:
            fix = f"write agreement>={number}%"
            raise UsageError("an agreement of more than 1", got=repr(text), expected=UNDERSTOOD, fix=fix)
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
        shortest = repr(float(self.limit))  # that reads back as the same float
        if self.measure == "agreement":
            return f"{(100 * Decimal(shortest)).normalize():f}%"
        return shortest.removesuffix(".0")

    def holds(self, value: float) -> bool:
        """Returns whether a value of the measure is on the good side of the limit; NaN is not."""
        return value >= self.limit if self.measure == "agreement" else value <= self.limit


def _relation(measure: str) -> str:
    return ">=" if measure == "agreement" else "<="


def measured(criterion: Criterion, assessment: Assessment) -> float:
    """Returns what an assessment found of the criterion's measure, in the unit of its limit.

    Raises:
        UsageError: It does not have the measure: there were no labels, or no logits.
    """
    return _figure_and_bound(criterion, assessment)[0]


def bound(criterion: Criterion, assessment: Assessment) -> float:
    """Returns the pessimistic end of the 95% interval of the criterion's measure, over the images.

    That is the lower end of the agreement and the upper end of the drop. The error is the largest that occurred on any
    image, which no draw from the same images exceeds: it is its own bound.

    Returns:
        In the unit of the criterion's limit; NaN where fewer than two images leave the interval unknown.

    Raises:
        UsageError: The assessment does not have the measure.
    """
    return _figure_and_bound(criterion, assessment)[1]


def met(criterion: Criterion, assessment: Assessment) -> bool:
    """Returns whether even the pessimistic end of the interval is on the good side of the limit; an unknown end is not.

    Raises:
        UsageError: The assessment does not have the measure.
    """
    return criterion.holds(bound(criterion, assessment))


def _figure_and_bound(criterion: Criterion, assessment: Assessment) -> tuple[float, float]:
    parity, drop = assessment.parity, assessment.drop
    if criterion.measure == "agreement":
        return parity.agreement, parity.agreement_low
    if criterion.measure == "error":
        if parity.error is None:
            raise UsageError(
                f"{criterion} cannot be held against labels alone",
                expected="logits of both nets",
                fix="build with --io tensor, or ask for agreement",
            )
        return parity.error, parity.error
    if drop is None:
        raise UsageError(
            f"{criterion} needs ground truth",
            expected="labels for each image",
            fix="name them with --data and --labels, or ask for agreement",
        )
    return drop.points, drop.high
