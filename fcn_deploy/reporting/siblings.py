"""Whether INT8 or FP16 is faster, in one sentence about two engines of one model: INT8 is not always."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.artifacts.sidecar import Sidecar
from fcn_deploy.evaluation.latency import Timing, ratio


@dataclass(frozen=True)
class Siblings:
    """The INT8 and the FP16 engine of one model and one library, timed together.

    Attributes:
        int8: Name of the INT8 engine.
        fp16: Name of the FP16 engine.
        ratio: Time of the INT8 engine over that of the FP16 engine, round by round.
    """

    int8: str
    fp16: str
    ratio: Ratio

    @property
    def faster(self) -> str | None:
        """`int8` or `fp16`; None if the quartiles of the ratio lie on both sides of 1, or there are none."""
        if self.ratio.high < 1:
            return "int8"
        return "fp16" if self.ratio.low > 1 else None

    def __str__(self) -> str:
        outcomes = {"int8": "INT8 is faster than FP16", "fp16": "INT8 is slower than FP16"}
        outcome = outcomes.get(self.faster or "", "Neither INT8 nor FP16 is faster")
        quartiles = f"quartiles {self.ratio.low:.2f}-{self.ratio.high:.2f}"
        if math.isnan(self.ratio.low):
            outcome, quartiles = "Too few rounds to tell whether INT8 or FP16 is faster", "no quartiles"
        times = f"{self.ratio.median:.2f}x the time of {self.fp16} ({self.ratio.in_words}; {quartiles})"
        return f"{outcome}: {self.int8} takes {times}."


def find_siblings(sidecars: Mapping[str, Sidecar | None], timings: Sequence[Timing]) -> list[Siblings]:
    """Returns each pair of an INT8 and an FP16 engine of the same model among the engines of a benchmark.

    Engines of different libraries are not siblings: they differ in more than the precision.

    Args:
        sidecars: By name of the timing; None for an engine without a sidecar.
        timings: Of all engines.
    """
    known = [(sidecar, timing) for timing in timings if (sidecar := sidecars[timing.name]) is not None]
    return [
        Siblings(int8_timing.name, fp16_timing.name, ratio(int8_timing, fp16_timing))
        for int8, int8_timing in known
        for fp16, fp16_timing in known
        if (int8.precision.requested, fp16.precision.requested) == ("int8", "fp16")
        and (int8.backend, int8.source.onnx_sha256) == (fp16.backend, fp16.source.onnx_sha256)
    ]
