"""Tables with bars and curves, as the template draws them: every section of figures is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fcn_deploy.artifacts.palette import Rgb

Tone = Literal["", "good", "bad"]

MISSING = "-"


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: What it says.
        detail: More, in small letters below.
        bar: Length of a bar below the text, 0..1; None for none.
        tone: Whether it is good or bad news; the text says so too.
        swatch: A colour before the text.
        curve: Heights of a histogram, 0..1 each.
    """

    text: str = MISSING
    detail: str = ""
    bar: float | None = None
    tone: Tone = ""
    swatch: Rgb | None = None
    curve: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row: its header, and a cell for each column."""

    header: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class FigureTable:
    """A table.

    Attributes:
        caption: What it shows.
        corner: What its rows are.
        columns: Headers of the other columns.
        rows: With as many cells as there are columns.
        notes: Sentences below it.
    """

    caption: str
    corner: str
    columns: tuple[Cell, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def fraction(value: float | None, whole: float | None) -> float | None:
    """Returns the length of a bar, 0..1: a value's part of a whole; None if one of the two is not known."""
    if value is None or whole is None or not math.isfinite(value) or not 0 < whole < math.inf:
        return None
    return min(1.0, max(0.0, value / whole))


def largest(values: Sequence[float | None]) -> float | None:
    """Returns the largest of the values that are known and finite, or None."""
    return max((value for value in values if value is not None and math.isfinite(value)), default=None)


def figure(value: float | None, form: str, unit: str = "") -> str:
    """Returns a number as text; a dash if it is not known.

    Args:
        value: The number.
        form: Its format, such as `.2f`.
        unit: What follows it.
    """
    return MISSING if value is None or math.isnan(value) else f"{value:{form}}{unit}"
