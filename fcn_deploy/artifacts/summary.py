"""The outcome of a deployment, as `summary.json` has it: plain values, without the arrays they were measured from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.json import FORMAT, check_format, integer, number, optional_number, require, strings
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity, Ratio
from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.errors import InputError
from fcn_deploy.text import printable


@dataclass(frozen=True)
class EngineSummary:
    """One engine of a deployment.

    Attributes:
        file: Its name in the output folder.
        bytes: Size of the file.
        precision: `fp32`, `bf16` or `int8`.
        gate: What it was checked against, and whether it passed.
        failures: One phrase for each criterion that does not hold.
        parity: Against PyTorch.
        miou: In points, 0..100; None without labels.
        miou_drop: Against PyTorch; None without labels.
        median_ms: Median latency of an image to its labels, in milliseconds.
        percentiles_ms: Further latencies in milliseconds, by percentile, such as `95`.
        vs_pytorch: Its time over PyTorch's.
        vs_fp32: Its time over that of the FP32 engine.
    """

    file: str
    bytes: int
    precision: str
    gate: Gate
    failures: tuple[str, ...]
    parity: Parity
    miou: float | None
    miou_drop: Drop | None
    median_ms: float
    percentiles_ms: Mapping[str, float]
    vs_pytorch: Ratio
    vs_fp32: Ratio

    def __repr__(self) -> str:
        outcome = "passed" if self.gate.passed else "failed"
        miou = "" if self.miou is None else f", mIoU {self.miou:.2f}"
        figures = f"agreement {self.parity.agreement:.3%}{miou}, {self.median_ms:.1f} ms"
        return printable(f"EngineSummary({self.file}, {self.precision}, {outcome}, {figures})")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return {**asdict(self), "failures": list(self.failures)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineSummary:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        drop = data["miou_drop"]
        return cls(
            file=str(data["file"]),
            bytes=integer(data["bytes"], "summary bytes"),
            precision=str(data["precision"]),
            gate=Gate.from_json(data["gate"]),
            failures=strings(data["failures"], "summary failures"),
            parity=Parity.from_json(data["parity"]),
            miou=optional_number(data["miou"], "summary miou"),
            miou_drop=None if drop is None else Drop.from_json(drop),
            median_ms=number(data["median_ms"], "summary median_ms"),
            percentiles_ms={
                str(share): number(time, "summary percentiles_ms")
                for share, time in data.get("percentiles_ms", {}).items()  # the first versions did not have it
            },
            vs_pytorch=Ratio.from_json(data["vs_pytorch"]),
            vs_fp32=Ratio.from_json(data["vs_fp32"]),
        )


@dataclass(frozen=True)
class Summary:
    """The outcome of a deployment.

    Attributes:
        model: Name of the exported ONNX file.
        variant: Of the net.
        export_error: Largest relative error of the exported model against PyTorch.
        calibration: Numbers of images: `observed` for the ranges, `judged` for the gates.
        shape: [height, width] of the image that the times are of.
        pytorch_ms: Median latency of PyTorch in milliseconds, image to labels.
        pytorch_miou: Of PyTorch, in points; None without labels.
        engines: FP32 first, then BF16 and INT8 if they were asked for.
        truth: What the ground truth says; None without labels.
        normalization: From pixels in 0..255 to the net's input, and whether it was assumed; None if an earlier version
            wrote the summary.
        warnings: What must be known before the figures are believed, a sentence each.
        conditions: What the times were measured under; None if an earlier version wrote the summary.
        rounds: How many times each engine was timed; None likewise.
        resumed: The stages that were taken over from an earlier run, in order.
        ship: Which engine to ship, and why; None if an earlier version wrote the summary.
        version: Of fcn-deploy, which wrote the summary.
    """

    model: str
    variant: str
    export_error: float
    calibration: Mapping[str, int]
    shape: tuple[int, int]
    pytorch_ms: float
    pytorch_miou: float | None
    engines: tuple[EngineSummary, ...]
    truth: GroundTruth | None = None
    normalization: Normalization | None = None
    warnings: tuple[str, ...] = ()
    conditions: Conditions | None = None
    rounds: int | None = None
    resumed: tuple[str, ...] = ()
    ship: Recommendation | None = None
    version: str = field(default=__version__, kw_only=True)

    def __repr__(self) -> str:
        outcomes = (f"{each.precision} {'passed' if each.gate.passed else 'failed'}" for each in self.engines)
        return printable(f"Summary({self.variant}, {', '.join(outcomes)}, {self.calibration.get('judged', 0)} images)")

    @property
    def passed(self) -> bool:
        """Whether every engine passed its gate."""
        return all(engine.gate.passed for engine in self.engines)

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as JSON data, with its format number."""
        return {
            "format": FORMAT,
            "fcn_deploy": self.version,
            "passed": self.passed,
            "model": self.model,
            "variant": self.variant,
            "export_error": self.export_error,
            "calibration": dict(self.calibration),
            "shape": list(self.shape),
            "pytorch": {"median_ms": self.pytorch_ms, "miou": self.pytorch_miou},
            "engines": [engine.to_json() for engine in self.engines],
            "truth": None if self.truth is None else self.truth.to_json(),
            "normalization": None if self.normalization is None else asdict(self.normalization),
            "warnings": list(self.warnings),
            **({} if self.conditions is None else self.conditions.to_json()),
            **({} if self.rounds is None else {"rounds": self.rounds}),
            "resumed": list(self.resumed),
            "ship": None if self.ship is None else self.ship.to_json(),
        }

    @classmethod
    def from_json(cls, data: object) -> Summary:
        """Reads what `to_json` wrote.

        Raises:
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, "the summary")
        try:
            pytorch, truth, normalization = fields["pytorch"], fields.get("truth"), fields.get("normalization")
            ship = fields.get("ship")  # the first versions did not have it
            return cls(
                model=str(fields["model"]),
                variant=str(fields["variant"]),
                export_error=number(fields["export_error"], "summary export_error"),
                calibration={
                    str(key): integer(count, f"summary calibration {key}")
                    for key, count in fields["calibration"].items()
                },
                shape=_shape(fields["shape"]),
                pytorch_ms=number(pytorch["median_ms"], "summary pytorch"),
                pytorch_miou=optional_number(pytorch["miou"], "summary pytorch"),
                engines=tuple(EngineSummary.from_json(engine) for engine in fields["engines"]),
                # The first versions had none of the next three.
                truth=None if truth is None else GroundTruth.from_json(truth),
                normalization=None if normalization is None else Normalization.from_json(normalization),
                warnings=strings(fields.get("warnings", ()), "summary warnings"),
                conditions=Conditions.from_json(fields),
                resumed=strings(fields.get("resumed", ()), "summary resumed"),
                ship=None if ship is None else Recommendation.from_json(ship),
                rounds=None if fields.get("rounds") is None else integer(fields["rounds"], "summary rounds"),
                version=str(fields["fcn_deploy"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the summary is malformed", got=f"{type(error).__name__}: {error}") from error


def _shape(value: object) -> tuple[int, int]:
    require(isinstance(value, list) and len(value) == 2, "summary shape", value, "[height, width]")
    height, width = (integer(size, "summary shape") for size in value)  # type: ignore[attr-defined]  # checked above
    return height, width
