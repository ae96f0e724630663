"""The ranges file: what calibration saw, kept as histograms so that methods are chosen later, without the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.json import FORMAT, check_format, known_fields
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import dumps_json, read_json, write_bytes


@dataclass(frozen=True)
class CalibrationData:
    """Which images were observed.

    Attributes:
        count: How many.
        sha256: Over their shapes and pixels, in order, in hex.
        size: [height, width] they were resized to, or None where they were taken as they are.
        random: True where they were noise, made up because there were no images.
    """

    count: int
    sha256: str
    size: tuple[int, int] | None = None
    random: bool = False

    def __post_init__(self) -> None:
        whole = [self.count, *(self.size or ())]
        if not all(isinstance(number, int) and number > 0 for number in whole) or len(whole) not in (1, 3):
            raise InputError("calibration data", got=repr(self), expected="a count, and a height and width or no size")


@dataclass(frozen=True, eq=False)
class Ranges:
    """The histograms of a model's tensors, and the means of what its convolutions read.

    Attributes:
        model_sha256: Of the ONNX file they belong to, in hex.
        data: The images.
        histograms: By tensor name.
        means: By tensor name, the mean of each channel, float64 [C]; empty in ranges of versions that took none.
    """

    model_sha256: str
    data: CalibrationData
    histograms: Mapping[str, Histogram]
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, mean in self.means.items():
            if mean.dtype != np.float64 or mean.ndim != 1 or not mean.size or not np.isfinite(mean).all():
                raise InputError(f"bad means of tensor {name}", got=mean, expected="finite numbers, one a channel")

    def save(self, path: Path) -> None:
        """Writes the ranges file, atomically.

        Raises:
            InputError: The path cannot be written.
        """
        write_bytes(path, self.dumps())

    def dumps(self) -> bytes:
        """Returns the content of the ranges file."""
        return (dumps_json(self.to_json(), indent=None) + "\n").encode()

    def to_json(self) -> dict[str, Any]:
        """Returns the ranges as JSON data, with their format number; without the key `means` where there are none."""
        data = {
            "format": FORMAT,
            "model_sha256": self.model_sha256,
            "data": asdict(self.data),
            "histograms": {name: histogram.to_json() for name, histogram in self.histograms.items()},
        }
        if self.means:  # a file without them is written back as it was read
            data["means"] = {name: mean.tolist() for name, mean in self.means.items()}
        return data

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Reads a ranges file.

        Raises:
            InputError: It cannot be read, is of an unknown format, or malformed.
        """
        fields = check_format(read_json(path), str(path))
        try:
            data = known_fields(CalibrationData, fields["data"])
            data["size"] = tuple(data["size"]) if data.get("size") else None
            return cls(
                model_sha256=str(fields["model_sha256"]),
                data=CalibrationData(**data),
                histograms={str(name): Histogram.from_json(value) for name, value in fields["histograms"].items()},
                means={str(name): _numbers(value) for name, value in fields.get("means", {}).items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise InputError(f"{path} is malformed", got=f"{type(error).__name__}: {error}") from error


def _numbers(values: list[float]) -> NDArray[np.float64]:
    if not all(type(value) in (int, float) for value in values):
        raise TypeError("means that are not numbers")
    return np.array(values, np.float64)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        min: The smallest value seen.
        max: The largest value seen.
        lo: Lower edge of the first bin, at most 0.
        hi: Upper edge of the last bin, at least 0.
        counts: int64 [bins].
    """

    min: float
    max: float
    lo: float
    hi: float
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        edges = (self.lo, self.min, self.max, self.hi)
        if not all(map(math.isfinite, edges)) or list(edges) != sorted(edges) or not self.lo <= 0 <= self.hi:
            raise InputError(
                "bad histogram",
                got=f"lo {self.lo}, min {self.min}, max {self.max}, hi {self.hi}",
                expected="finite numbers in this order, 0 between lo and hi",
            )
        # The sum is taken in float, which cannot wrap around.
        good = self.lo < self.hi and self.counts.ndim == 1 and len(self.counts) and self.counts.min() >= 0
        if not good or not 0 < self.counts.sum(dtype=np.float64) < 2**63:
            raise InputError("bad histogram", got=f"counts {self.counts}", expected="counts of 0 or more, not all 0")

    @property
    def width(self) -> float:
        """Of one bin."""
        return (self.hi - self.lo) / len(self.counts)

    @property
    def edges(self) -> NDArray[np.float64]:
        """float64 [bins + 1]."""
        return np.linspace(self.lo, self.hi, len(self.counts) + 1)

    def to_json(self) -> dict[str, Any]:
        """Returns it as the JSON data of a ranges file."""
        return {
            "min": self.min,
            "max": self.max,
            "lo": self.lo,
            "hi": self.hi,
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Histogram:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
        """
        counts = np.asarray(data["counts"])
        if counts.dtype != np.int64:
            raise InputError("bad histogram", got=f"counts as {counts.dtype}", expected="integers below 2**63")
        return cls(float(data["min"]), float(data["max"]), float(data["lo"]), float(data["hi"]), counts)


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
