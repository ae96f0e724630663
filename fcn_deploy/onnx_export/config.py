"""How to export: checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import UsageError

_LARGEST = 3.4028234663852886e38  # of float32, in which engines compare


@dataclass(frozen=True)
class ExportConfig:
    """How to export.

    Attributes:
        opset: ONNX operator set, 18 to 23.
        shape: Fixes batch, height and width; if None, all three are dynamic.
        threshold: Of a binary net; if None, 0.5 for one that ends in a sigmoid, else that of its spec.

    Raises:
        UsageError: torch does not write that operator set, or the threshold is no finite float32.
    """

    opset: int = 18
    shape: ImageShape | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not 18 <= self.opset <= 23:
            raise UsageError("unsupported opset", got=self.opset, expected="18 to 23")
        if self.threshold is not None and not _is_float32(self.threshold):
            expected = "a number, such as 0 or 0.5"
            raise UsageError("bad `threshold`", got=repr(self.threshold), expected=expected)


def _is_float32(value: object) -> bool:
    # NaN and infinities are none.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
