"""Gates: how much a precision may cost before an engine is not shipped."""

from __future__ import annotations

from dataclasses import dataclass

from fcn_deploy.evaluate.accuracy import Drop
from fcn_deploy.evaluate.parity import Parity
from fcn_deploy.sidecar import Gate


@dataclass(frozen=True)
class Thresholds:
    """What an engine must keep.

    Attributes:
        agreement: Least share of pixels labelled alike, 0..1.
        error: Largest relative error of the logits, where they can be compared; None for any.
        miou_drop: Most mIoU points lost, which counts instead of the agreement where there are labels; None for no
            such rule.
    """

    agreement: float
    error: float | None = None
    miou_drop: float | None = None


THRESHOLDS = {
    "fp32": Thresholds(agreement=0.9999, error=1e-4),
    "fp16": Thresholds(agreement=0.995),
    "int8": Thresholds(agreement=0.97, miou_drop=0.5),
}


@dataclass(frozen=True)
class Verdict:
    """The outcome of a gate.

    Attributes:
        gate: As the sidecar records it.
        failures: One phrase for each threshold that was missed.
    """

    gate: Gate
    failures: tuple[str, ...]


def judge(precision: str, parity: Parity, drop: Drop | None = None) -> Verdict:
    """Holds what was measured against the thresholds of a precision.

    Args:
        precision: `fp32`, `fp16` or `int8`.
        parity: Against the reference.
        drop: Of mIoU against the reference, where there are labels.
    """
    limits = THRESHOLDS[precision]
    failures = []
    if drop is not None and limits.miou_drop is not None:
        # Written so that NaN fails.
        if not drop.points <= limits.miou_drop:
            failures.append(f"mIoU drops by {drop.points:.2f} points, allowed {limits.miou_drop}")
    elif not parity.agreement >= limits.agreement:
        failures.append(f"agreement {parity.agreement:.3%}, required {limits.agreement:.2%}")
    if parity.error is not None and limits.error is not None and not parity.error <= limits.error:
        failures.append(f"error {parity.error:.2e} of the logits' range, allowed {limits.error:.0e}")
    gate = Gate(parity.agreement, not failures, parity.error, drop.points if drop else None)
    return Verdict(gate, tuple(failures))
