"""The ranges file: histograms of what calibration saw, so that a method is chosen later, without the images."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.json import FORMAT, check_format, known_fields
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import as_path, dumps_json, read_json, sha256_bytes, write_bytes

# Said of every engine and every measurement that rests on such ranges (`CalibrationData.random`).
OBSERVED_ON_NOISE = "Calibration saw noise instead of images: use the result for timing only."

# A key without which a ranges file would be misunderstood.
_SCALES = "scales"


@dataclass(frozen=True)
class CalibrationData:
    """Which images were observed.

    Attributes:
        count: How many images.
        sha256: Of their shapes and pixels, in order, in hex.
        size: [height, width] they were resized to; None if they were not resized.
        random: Whether they were random noise instead of images.

    Raises:
        InputError: A number is not a positive integer.
    """

    count: int
    sha256: str
    size: tuple[int, int] | None = None
    random: bool = False

    def __post_init__(self) -> None:
        whole = [self.count, *(self.size or ())]
        if not all(isinstance(number, int) and number > 0 for number in whole) or len(whole) not in (1, 3):
            raise InputError(
                "bad calibration data", got=repr(self), expected="a count, and a size of height and width or no size"
            )


@dataclass(frozen=True, eq=False, repr=False)
class Ranges:
    """The histograms of a model's tensors, and the means of the inputs of its convolutions.

    Attributes:
        model_sha256: Of the ONNX file that was observed, in hex.
        data: The images it was observed on.
        histograms: By tensor name.
        means: By tensor name, the mean of each channel, float64 [C]; empty in files of versions that kept no means.
        scales: By tensor name, what each channel was divided by before it was observed, float64 [C], positive; the
            graph that uses the ranges is divided by the same. Empty if nothing was.

    Raises:
        InputError: A mean or scale is not float64 [C], or not finite, or a scale is not positive.
    """

    model_sha256: str
    data: CalibrationData
    histograms: Mapping[str, Histogram]
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    scales: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, scale in self.scales.items():
            good = scale.dtype == np.float64 and scale.ndim == 1 and scale.size and np.isfinite(scale).all()
            if not good or scale.min() <= 0:
                raise InputError(f"bad scales of tensor {name}", got=scale, expected="positive numbers, one a channel")
        for name, mean in self.means.items():
            if mean.dtype != np.float64 or mean.ndim != 1 or not mean.size or not np.isfinite(mean).all():
                raise InputError(f"bad means of tensor {name}", got=mean, expected="finite numbers, one a channel")

    def __repr__(self) -> str:
        return f"Ranges({len(self.histograms)} tensors, {self.data.count} images, model {self.model_sha256[:12]}...)"

    @property
    def sha256(self) -> str:
        """Of the ranges file, in hex."""
        return sha256_bytes(self.dumps())

    def require_model(self, sha256: str) -> None:
        """Checks that the ranges were observed on a model.

        Args:
            sha256: Of the model's ONNX file, in hex.

        Raises:
            InputError: They belong to another model.
        """
        if self.model_sha256 != sha256:
            raise InputError(
                "the ranges belong to another model",
                got=f"ranges of {self.model_sha256[:12]}...",
                expected=f"ranges of {sha256[:12]}...",
                fix="calibrate this model: fcn-deploy calibrate",
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ranges file, atomically.

        Raises:
            InputError: The path cannot be written.
        """
        write_bytes(as_path(path), self.dumps())

    def dumps(self) -> bytes:
        """Returns the content of the ranges file."""
        return (dumps_json(self.to_json(), indent=None) + "\n").encode()

    def to_json(self) -> dict[str, Any]:
        """Returns the ranges as JSON data, with their format number; without means there is no key `means`."""
        data = {
            "format": FORMAT,
            "model_sha256": self.model_sha256,
            "data": asdict(self.data),
            "histograms": {name: histogram.to_json() for name, histogram in self.histograms.items()},
        }
        if self.means:  # a file of an earlier version is written back with the same bytes
            data["means"] = {name: mean.tolist() for name, mean in self.means.items()}
        if self.scales:  # who does not know of them would quantise another net than was observed
            data["requires"] = [_SCALES]
            data[_SCALES] = {name: scale.tolist() for name, scale in self.scales.items()}
        return data

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ranges:
        """Reads a ranges file.

        Raises:
            InputError: It cannot be read, its format is unknown, or it is malformed.
        """
        fields = check_format(read_json(as_path(path)), str(path), (_SCALES,))
        try:
            data = known_fields(CalibrationData, fields["data"])
            data["size"] = tuple(data["size"]) if data.get("size") else None
            return cls(
                model_sha256=str(fields["model_sha256"]),
                data=CalibrationData(**data),
                histograms={str(name): Histogram.from_json(value) for name, value in fields["histograms"].items()},
                means={str(name): _numbers(value) for name, value in fields.get("means", {}).items()},
                scales={str(name): _numbers(value) for name, value in fields.get(_SCALES, {}).items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise InputError(f"{path} is malformed", got=f"{type(error).__name__}: {error}") from error


def _numbers(values: list[float]) -> NDArray[np.float64]:
    if not all(type(value) in (int, float) for value in values):
        raise TypeError("means or scales that are not numbers")
    return np.array(values, np.float64)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        min: The smallest value seen.
        max: The largest value seen.
        lo: Lower edge of the first bin, at most 0.
        hi: Upper edge of the last bin, at least 0.
        counts: int64 [bins], not all 0.

    Raises:
        InputError: A number is not finite or does not fit the others.
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
        # Sum in float: a sum of integers from a hostile file could wrap around.
        good = self.lo < self.hi and self.counts.ndim == 1 and len(self.counts) and self.counts.min() >= 0
        if not good or not 0 < self.counts.sum(dtype=np.float64) < 2**63:
            raise InputError("bad histogram", got=f"counts {self.counts}", expected="counts of 0 or more, not all 0")

    @property
    def width(self) -> float:
        """The width of one bin."""
        return (self.hi - self.lo) / len(self.counts)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The edges of the bins, float64 [bins + 1]."""
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
    """The values that a quantised tensor can represent; values outside are clipped.

    Attributes:
        lo: Lower end, at most 0: the integers must represent zero exactly.
        hi: Upper end, at least 0.

    Raises:
        UsageError: Zero is not between the two.
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not self.lo <= 0 <= self.hi:
            raise UsageError("bad range", got=f"{self.lo} to {self.hi}", expected="lo <= 0 <= hi")
