"""Whether INT8 or float is faster, in one sentence about two engines of one model: INT8 is not always."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.artifacts.sidecar import Sidecar
from fcn_deploy.evaluation.latency import Timing, ratio

# What an INT8 engine is compared with.
FLOATS = ("fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Siblings:
    """The INT8 engine and a float engine of one model and one library, timed together.

    Attributes:
        int8: Name of the INT8 engine.
        other: Name of the float engine.
        precision: Of the float engine: `fp16`, `bf16` or `fp32`.
        ratio: Time of the INT8 engine over that of the float engine, round by round.
    """

    int8: str
    other: str
    precision: str
    ratio: Ratio

    @property
    def faster(self) -> str | None:
        """`int8`, or the other's precision; None if the ratio's quartiles lie on both sides of 1, or there are none."""
        if self.ratio.high < 1:
            return "int8"
        return self.precision if self.ratio.low > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data; the key of the float engine is its precision."""
        names = {"int8": self.int8, self.precision: self.other}
        return {**names, "ratio": asdict(self.ratio), "faster": self.faster, "text": str(self)}

    def __str__(self) -> str:
        name = self.precision.upper()
        outcomes = {"int8": f"INT8 is faster than {name}", self.precision: f"INT8 is slower than {name}"}
        outcome = outcomes.get(self.faster or "", f"Neither INT8 nor {name} is faster")
        quartiles = f"quartiles {self.ratio.low:.2f}-{self.ratio.high:.2f}"
        if math.isnan(self.ratio.low):
            outcome, quartiles = f"Too few rounds to tell whether INT8 or {name} is faster", "no quartiles"
        times = f"{self.ratio.median:.2f}x the time of {self.other} ({self.ratio.in_words}; {quartiles})"
        return f"{outcome}: {self.int8} takes {times}."


def find_siblings(sidecars: Mapping[str, Sidecar | None], timings: Sequence[Timing]) -> list[Siblings]:
    """Returns each pair of an INT8 and a float engine of the same model among the engines of a benchmark.

    Engines of different libraries are not siblings: they differ in more than the precision.

    Args:
        sidecars: By name of the timing; None for an engine without a sidecar.
        timings: Of all engines.
    """
    known = [(sidecar, timing) for timing in timings if (sidecar := sidecars[timing.name]) is not None]
    return [
        Siblings(int8_timing.name, timing.name, other.precision.requested, ratio(int8_timing, timing))
        for int8, int8_timing in known
        for other, timing in known
        if int8.precision.requested == "int8"
        and other.precision.requested in FLOATS
        and (int8.backend, int8.source.onnx_sha256) == (other.backend, other.source.onnx_sha256)
    ]
