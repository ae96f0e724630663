"""What a tensor depends on, axis by axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import onnx_ir as ir


@dataclass(frozen=True)
class Span:
    """What elements of an axis depend on: element i on pixels `step * i + low` to `step * i + high`.

    Attributes:
        step: Pixels from one element to the next.
        low: Of the first pixel, from the element's place.
        high: Of the last.
    """

    step: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def reading(self, stride: Fraction, first: Fraction, last: Fraction) -> Span:
        """Returns the span of what reads elements `stride * i + first` to `stride * i + last` of this axis."""
        return Span(self.step * stride, self.low + self.step * first, self.high + self.step * last)

    def union(self, other: Span) -> Span:
        """Returns what depends on all that either does."""
        return Span(self.step, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Field:
    """What a tensor depends on, and where its rows and columns stand among its axes.

    Attributes:
        rank: How many axes it has.
        axes: Those of rows and of columns.
        spans: What their elements depend on.
    """

    rank: int
    axes: tuple[int, int]
    spans: tuple[Span, Span]

    def along(self, change: Callable[[int, int, Span], Span]) -> Field:
        """Returns it with `change(index, axis, span)` for either span."""
        changed = (
            change(index, axis, span) for index, (axis, span) in enumerate(zip(self.axes, self.spans, strict=True))
        )
        return replace(self, spans=tuple(changed))  # type: ignore[arg-type]

    def union(self, other: Field) -> Field:
        """Returns what depends on all that either does."""
        return self.along(lambda index, axis, span: span.union(other.spans[index]))


class WholeImageError(Exception):
    """A node that keeps a net from being run in tiles; its text says which and why."""


def only_if(fits: bool, field: Field, node: ir.Node, why: str = "goes along rows or columns") -> Field:
    """Returns a field.

    Raises:
        WholeImageError: It does not fit the node.
    """
    if not fits:
        raise WholeImageError(f"{node.op_type} {node.name} {why}")
    return field
