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
        low: The offset of the first pixel from `step * i`.
        high: The offset of the last pixel from `step * i`.
    """

    step: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def reading(self, stride: Fraction, first: Fraction, last: Fraction) -> Span:
        """Returns the span of an output that reads elements `stride * i + first` to `stride * i + last`."""
        return Span(self.step * stride, self.low + self.step * first, self.high + self.step * last)

    def union(self, other: Span) -> Span:
        """Returns the smallest one that depends on everything that either of the two depends on."""
        return Span(self.step, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Field:
    """What a tensor depends on, and which of its axes are rows and columns.

    Attributes:
        rank: The number of axes.
        axes: The axis of rows and the axis of columns.
        spans: What the elements of these two axes depend on.
    """

    rank: int
    axes: tuple[int, int]
    spans: tuple[Span, Span]

    def along(self, change: Callable[[int, int, Span], Span]) -> Field:
        """Returns the field with each span replaced by `change(index, axis, span)`."""
        changed = (
            change(index, axis, span) for index, (axis, span) in enumerate(zip(self.axes, self.spans, strict=True))
        )
        return replace(self, spans=tuple(changed))  # type: ignore[arg-type]

    def union(self, other: Field) -> Field:
        """Returns the smallest one that depends on everything that either of the two depends on."""
        return self.along(lambda index, axis, span: span.union(other.spans[index]))


class WholeImageError(Exception):
    """A node prevents a net from being run in tiles; the text names the node and the reason."""


def only_if(fits: bool, field: Field, node: ir.Node, why: str = "works along rows or columns") -> Field:
    """Returns a field if it fits a node.

    Raises:
        WholeImageError: It does not fit; `why` follows the name of the node in the message.
    """
    if not fits:
        raise WholeImageError(f"{node.op_type} {node.name} {why}")
    return field
