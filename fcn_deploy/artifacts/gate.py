"""A gate that an engine was checked against, as sidecars and summaries record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fcn_deploy.artifacts.json import is_number, known_fields
from fcn_deploy.errors import InputError


@dataclass(frozen=True)
class Gate:
    """The measured agreement with the reference, and whether it was enough.

    Attributes:
        agreement: Share of pixels with the same label, 0..1.
        passed: Whether every criterion holds.
        error: Largest difference of the logits over their range; None if logits could not be compared.
        miou_drop: In points; None without labels.
        criteria: What counted, such as `agreement>=97%`; empty if an earlier version wrote the sidecar.
        speedup: Time of the FP32 engine over that of this one; None if none was required.
    """

    agreement: float
    passed: bool
    error: float | None = None
    miou_drop: float | None = None
    criteria: tuple[str, ...] = ()
    speedup: float | None = None

    def __post_init__(self) -> None:
        # A gate that failed may hold NaN, so each check refuses what lies outside the range and lets NaN through.
        if not is_number(self.agreement) or self.agreement < 0 or self.agreement > 1:
            raise InputError("sidecar gate agreement", got=repr(self.agreement), expected="a share, 0 to 1")
        if not isinstance(self.passed, bool):
            raise InputError("sidecar gate passed", got=repr(self.passed), expected="true or false")
        if self.error is not None and (not is_number(self.error) or self.error < 0):
            raise InputError("sidecar gate error", got=repr(self.error), expected="0 or more, or null")
        if self.miou_drop is not None and (not is_number(self.miou_drop) or abs(self.miou_drop) > 100):
            raise InputError("sidecar gate miou_drop", got=repr(self.miou_drop), expected="-100 to 100 points, or null")
        if self.speedup is not None and (not is_number(self.speedup) or self.speedup < 0):
            raise InputError("sidecar gate speedup", got=repr(self.speedup), expected="0 or more, or null")
        if not isinstance(self.criteria, tuple) or not all(isinstance(each, str) for each in self.criteria):
            raise InputError("sidecar gate criteria", got=repr(self.criteria), expected="a list of texts")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gate:
        """Reads the gate of a sidecar or a summary.

        Raises:
            InputError: A value is bad.
        """
        known = known_fields(cls, data)
        if isinstance(known.get("criteria"), list):
            known["criteria"] = tuple(known["criteria"])
        return cls(**known)
