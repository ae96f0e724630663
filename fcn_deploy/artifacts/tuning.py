"""How kernels and library were chosen by measuring, as a sidecar records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fcn_deploy.artifacts.json import known_fields
from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.errors import InputError


@dataclass(frozen=True)
class Tuning:
    """How kernels were chosen by measuring, and the library if that was to be chosen too.

    Attributes:
        shape: Of the images, `NxHxW`.
        threads: CPU threads; None for all cores.
        cpu: The processor, as its system calls it.
        milliseconds: Median time of an image to its labels, by candidate.
        chosen: The candidate that the engine is.
        ratios: Time over that of the chosen candidate, round by round; empty if an earlier version wrote the sidecar.
    """

    shape: str
    threads: int | None
    cpu: str
    milliseconds: Mapping[str, float]
    chosen: str
    ratios: Mapping[str, Ratio] = field(default_factory=dict)

    def __post_init__(self) -> None:
        times = self.milliseconds
        timed = isinstance(times, Mapping) and all(isinstance(each, int | float) for each in times.values())
        if not timed or not isinstance(self.threads, int | None):
            raise InputError("sidecar tuning", got=repr(times), expected="milliseconds by candidate, and threads")
        if not isinstance(self.shape, str) or not isinstance(self.cpu, str):
            raise InputError("sidecar tuning", got=f"{self.shape!r}, {self.cpu!r}", expected="a shape and a processor")
        if self.chosen not in self.milliseconds:
            raise InputError("sidecar tuning", got=repr(self.chosen), expected=f"one of {', '.join(self.milliseconds)}")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tuning:
        """Reads the tuning of a sidecar.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        known = known_fields(cls, data)
        ratios = known.pop("ratios", {})
        return cls(**known, ratios={str(name): Ratio.from_json(each) for name, each in ratios.items()})
