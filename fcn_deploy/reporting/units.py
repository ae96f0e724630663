"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def with_prefix(count: float, unit: str = "") -> str:
    """Returns a count with three digits and a decimal prefix: `38.7 GMAC`, `2.36 M`, `640`.

    Args:
        count: 0 or more.
        unit: What is counted.
    """
    factor, prefix = next(((factor, prefix) for factor, prefix in _PREFIXES if count >= factor), (1, ""))
    number = count / factor
    digits = 0 if factor == 1 or number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f} {prefix}{unit}".rstrip()


def interval_95(low: float, high: float, form: str) -> str:
    """Returns ` (95% interval 98.100% to 99.200%)`, to follow a figure; without an interval, the reason.

    Args:
        low: Lower end; NaN if there is no interval, because there is one image only.
        high: Upper end.
        form: Format of the two ends, such as `.3%`.
    """
    return " (one image: no interval)" if math.isnan(low) else f" (95% interval {low:{form}} to {high:{form}})"


def listed(names: Sequence[object], shown: int = 8) -> str:
    """Returns the first names as a list in words, and the number of the others: `a, b and 3 more`."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
