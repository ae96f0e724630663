"""Which engine of a deployment to ship, as its summary states it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.errors import InputError
from fcn_deploy.text import printable


@dataclass(frozen=True)
class Recommendation:
    """Which engine to ship, and why; `str()` gives one sentence.

    Attributes:
        engine: The name of its file; None if there is no engine to ship, or too little was measured to tell.
        reason: Why, with what was measured.
        speedup: Time of the FP32 engine over that of this one; on a GPU, where FP32 is not built, of the FP16 engine.
            More is faster. None without an engine.
    """

    engine: str | None
    reason: str
    speedup: Ratio | None = None

    def __str__(self) -> str:
        return printable(self.reason if self.engine is None else f"ship {self.engine}: {self.reason}")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recommendation:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        engine, reason, speedup = data["engine"], data["reason"], data["speedup"]
        if not isinstance(engine, str | None) or not isinstance(reason, str):
            raise InputError("summary ship", got=f"{engine!r}, {reason!r}", expected="a file or null, and a reason")
        return cls(engine, reason, None if speedup is None else Ratio.from_json(speedup))
