"""Which of an INT8 engine and its FP16 twin is the faster, in one sentence: INT8 is not always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcn_deploy.artifacts.sidecar import Sidecar
from fcn_deploy.evaluation.latency import Ratio, Timing, ratio


@dataclass(frozen=True)
class Twins:
    """Two engines of one model and one library, measured together.

    Attributes:
        int8: Name of the one in INT8.
        fp16: Name of the one in FP16.
        ratio: Time of the first over that of the second, round by round.
    """

    int8: str
    fp16: str
    ratio: Ratio

    @property
    def faster(self) -> str | None:
        """`int8` or `fp16`; None where the quartiles of the rounds do not agree on either."""
        if self.ratio.high < 1:
            return "int8"
        return "fp16" if self.ratio.low > 1 else None

    def __str__(self) -> str:
        verdicts = {"int8": "INT8 is faster than FP16", "fp16": "INT8 is slower than FP16"}
        verdict = verdicts.get(self.faster or "", "Neither INT8 nor FP16 is faster")
        low, high = f"{self.ratio.low:.2f}", f"{self.ratio.high:.2f}"
        times = f"{self.ratio.median:.2f}x the time of {self.fp16} (quartiles {low}-{high})"
        return f"{verdict}: {self.int8} takes {times}."


def find_twins(sidecars: Mapping[str, Sidecar | None], timings: Sequence[Timing], labels: Sequence[str]) -> list[Twins]:
    """Returns the twins among the engines of a benchmark.

    Engines of different libraries are not twins: what sets them apart is more than the precision.

    Args:
        sidecars: By name of the contestant; None for one that has none.
        timings: Of all contestants.
        labels: What to call them, in the order of the timings.
    """
    known = [
        (sidecar, timing, label)
        for timing, label in zip(timings, labels, strict=True)
        if (sidecar := sidecars[timing.name]) is not None
    ]
    return [
        Twins(label, other, ratio(timing, baseline))
        for sidecar, timing, label in known
        for twin, baseline, other in known
        if (sidecar.precision.requested, twin.precision.requested) == ("int8", "fp16")
        and (sidecar.backend, sidecar.source.onnx_sha256) == (twin.backend, twin.source.onnx_sha256)
    ]
