"""What a quantised tensor can represent."""

from __future__ import annotations

from dataclasses import dataclass

from fcn_deploy.errors import UsageError


@dataclass(frozen=True)
class Range:
    """The values that a quantised tensor can represent; what lies outside is clipped.

    Attributes:
        lo: At most 0, for zero must be representable.
        hi: At least 0.
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not self.lo <= 0 <= self.hi:
            raise UsageError("bad range", got=f"{self.lo} to {self.hi}", expected="lo <= 0 <= hi")
