"""The outcome of a deployment, as `summary.json` has it: plain values, without the arrays they were measured from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.gallery import Gallery
from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.json import FORMAT, check_format, integer, number, optional_number, require, strings
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity, Ratio
from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.origin import LayerCost, Origin
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.errors import InputError
from fcn_deploy.text import printable

# Keys of a summary or of one of its engines that an earlier version does not know, and would misunderstand without.
_REQUIRED = ("simulates", "gpu")

# Keys of an engine that stand in a summary only if there is something to say.
_OPTIONAL = ("simulates", "simulated_agreement", "vs_fp16", "sha256", "class_iou", "layers")

# IoU of each class in points; None for a class that neither the truth nor the labels have. Empty without labels.
ClassIou = tuple[float | None, ...]


@dataclass(frozen=True)
class EngineSummary:
    """One engine of a deployment.

    Attributes:
        file: Its name in the output folder.
        bytes: Size of the file.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        gate: What it was checked against, and whether it passed.
        failures: One phrase for each criterion that does not hold.
        parity: Against PyTorch.
        miou: In points, 0..100; None without labels.
        miou_drop: Against PyTorch; None without labels.
        median_ms: Median latency of an image to its labels, in milliseconds; None if it was not timed.
        percentiles_ms: Further latencies in milliseconds, by percentile, such as `95`.
        vs_pytorch: Its time over PyTorch's; None if it was not timed, or without PyTorch.
        vs_fp32: Its time over that of the FP32 engine; None if it was not timed, or there is no such engine.
        simulates: `tensorrt` or `tensorrt-rtx` if the figures are those of a simulation on a CPU, whose time would mean
            nothing; None for an engine that ran.
        simulated_agreement: What the simulation of an engine that ran agreed with PyTorch, 0..1, on the images of
            `deploy`; None if there was none.
        vs_fp16: Its time over that of the FP16 engine, if that is what others are compared with.
        sha256: Of its file, in hex; None if an earlier version wrote the summary.
        class_iou: Of each class, in points; empty without labels, or if an earlier version wrote the summary.
        layers: What each of its layers runs in, by name, if that is known, else what was asked for it; empty if an
            earlier version wrote the summary.
    """

    file: str
    bytes: int
    precision: str
    gate: Gate
    failures: tuple[str, ...]
    parity: Parity
    miou: float | None
    miou_drop: Drop | None
    median_ms: float | None
    percentiles_ms: Mapping[str, float]
    vs_pytorch: Ratio | None
    vs_fp32: Ratio | None
    simulates: str | None = None
    simulated_agreement: float | None = None
    vs_fp16: Ratio | None = None
    sha256: str | None = None
    class_iou: ClassIou = ()
    layers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        outcome = "passed" if self.gate.passed else "failed"
        miou = "" if self.miou is None else f", mIoU {self.miou:.2f}"
        time = "simulated" if self.median_ms is None else f"{self.median_ms:.1f} ms"
        figures = f"agreement {self.parity.agreement:.3%}{miou}, {time}"
        return printable(f"EngineSummary({self.file}, {self.precision}, {outcome}, {figures})")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data, without optional keys that say nothing."""
        said = asdict(self).items()
        fields = {key: value for key, value in said if value not in (None, (), {}) or key not in _OPTIONAL}
        return {**fields, "failures": list(self.failures)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineSummary:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        drop, simulates, agreed = data["miou_drop"], data.get("simulates"), data.get("simulated_agreement")
        untimed = simulates is not None
        without_cpu = untimed or "vs_fp16" in data
        return cls(
            file=str(data["file"]),
            bytes=integer(data["bytes"], "summary bytes"),
            precision=str(data["precision"]),
            gate=Gate.from_json(data["gate"]),
            failures=strings(data["failures"], "summary failures"),
            parity=Parity.from_json(data["parity"]),
            miou=optional_number(data["miou"], "summary miou"),
            miou_drop=None if drop is None else Drop.from_json(drop),
            median_ms=None if untimed else number(data["median_ms"], "summary median_ms"),
            percentiles_ms=_percentiles(data.get("percentiles_ms", {})),  # the first versions did not have it
            vs_pytorch=_ratio(data["vs_pytorch"], optional=without_cpu),
            vs_fp32=_ratio(data["vs_fp32"], optional=without_cpu),
            simulates=None if simulates is None else str(simulates),
            simulated_agreement=None if agreed is None else number(agreed, "summary simulated_agreement"),
            vs_fp16=_ratio(data.get("vs_fp16"), optional=True),
            sha256=None if (sha256 := data.get("sha256")) is None else strings([sha256], "summary sha256")[0],
            class_iou=_class_iou(data.get("class_iou", [])),
            layers=_layers(data.get("layers", {})),
        )


def _percentiles(data: Mapping[str, Any]) -> Mapping[str, float]:
    return {str(share): number(time, "summary percentiles_ms") for share, time in data.items()}


def _class_iou(values: object) -> ClassIou:
    require(isinstance(values, list), "summary class_iou", values, "a list of numbers, or null for one")
    return tuple(optional_number(value, "summary class_iou") for value in values)  # type: ignore[attr-defined]


def _layers(value: object) -> Mapping[str, str]:
    require(isinstance(value, Mapping), "summary layers", value, "a precision by layer")
    strings(list(value.values()), "summary layers")  # type: ignore[attr-defined]  # checked above
    return dict(value)  # type: ignore[call-overload,no-any-return]


def _ratio(data: Any, *, optional: bool) -> Ratio | None:
    return None if data is None and optional else Ratio.from_json(data)


@dataclass(frozen=True)
class Summary:
    """The outcome of a deployment.

    Attributes:
        model: Name of the exported ONNX file.
        variant: Of the net.
        export_error: Largest relative error of the exported model against PyTorch.
        calibration: Numbers of images: `observed` for the ranges, `judged` for the gates.
        shape: [height, width] of the image that the times are of.
        pytorch_ms: Median latency of PyTorch in milliseconds, image to labels; None if it was not timed.
        pytorch_miou: Of PyTorch, in points; None without labels.
        engines: FP32 first, then BF16 and INT8 if they were asked for; for NVIDIA's libraries FP16, then INT8.
        truth: What the ground truth says; None without labels.
        normalization: From pixels in 0..255 to the net's input, and whether it was assumed; None if an earlier version
            wrote the summary.
        warnings: What must be known before the figures are believed, a sentence each.
        conditions: What the times were measured under; None if an earlier version wrote the summary.
        rounds: How many times each engine was timed; None likewise.
        resumed: The stages that were taken over from an earlier run, in order.
        ship: Which engine to ship, and why; None if an earlier version wrote the summary.
        gpu: What the engines ran on, and by which library; None for a CPU, or if nothing ran.
        pytorch_percentiles_ms: Further latencies of PyTorch in milliseconds, by percentile.
        pytorch_class_iou: Of PyTorch, as for an engine.
        origin: What it was made from; None if an earlier version wrote the summary, as for the next two.
        layers: Those of the exported model, with their cost for an image of `shape`.
        gallery: The pictures that were kept; None if none were.
        version: Of fcn-deploy, which wrote the summary.
    """

    model: str
    variant: str
    export_error: float
    calibration: Mapping[str, int]
    shape: tuple[int, int]
    pytorch_ms: float | None
    pytorch_miou: float | None
    engines: tuple[EngineSummary, ...]
    truth: GroundTruth | None = None
    normalization: Normalization | None = None
    warnings: tuple[str, ...] = ()
    conditions: Conditions | None = None
    rounds: int | None = None
    resumed: tuple[str, ...] = ()
    ship: Recommendation | None = None
    gpu: str | None = None
    pytorch_percentiles_ms: Mapping[str, float] = field(default_factory=dict)
    pytorch_class_iou: ClassIou = ()
    origin: Origin | None = None
    layers: tuple[LayerCost, ...] = ()
    gallery: Gallery | None = None
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
        simulated = any(engine.simulates is not None for engine in self.engines)
        requires = [name for name, said in zip(_REQUIRED, (simulated, self.gpu is not None), strict=True) if said]
        return {
            "format": FORMAT,
            "fcn_deploy": self.version,
            "passed": self.passed,
            "model": self.model,
            "variant": self.variant,
            "export_error": self.export_error,
            "calibration": dict(self.calibration),
            "shape": list(self.shape),
            "pytorch": {
                "median_ms": self.pytorch_ms,
                "miou": self.pytorch_miou,
                **({"percentiles_ms": dict(self.pytorch_percentiles_ms)} if self.pytorch_percentiles_ms else {}),
                **({"class_iou": list(self.pytorch_class_iou)} if self.pytorch_class_iou else {}),
            },
            "engines": [engine.to_json() for engine in self.engines],
            "truth": None if self.truth is None else self.truth.to_json(),
            "normalization": None if self.normalization is None else asdict(self.normalization),
            "warnings": list(self.warnings),
            **({} if self.conditions is None else self.conditions.to_json()),
            **({} if self.rounds is None else {"rounds": self.rounds}),
            "resumed": list(self.resumed),
            "ship": None if self.ship is None else self.ship.to_json(),
            **({} if self.gpu is None else {"gpu": self.gpu}),
            **({} if self.origin is None else {"origin": self.origin.to_json()}),
            **({"layers": [asdict(layer) for layer in self.layers]} if self.layers else {}),
            **({} if self.gallery is None else {"gallery": self.gallery.to_json()}),
            **({"requires": requires} if requires else {}),
        }

    @classmethod
    def from_json(cls, data: object) -> Summary:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: It requires something that this version does not know.
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, "the summary", _REQUIRED)
        try:
            pytorch, truth, normalization = fields["pytorch"], fields.get("truth"), fields.get("normalization")
            ship, gpu = fields.get("ship"), fields.get("gpu")  # the first versions did not have them
            timed = pytorch["median_ms"]
            origin, gallery = fields.get("origin"), fields.get("gallery")
            found = cls(
                model=str(fields["model"]),
                variant=str(fields["variant"]),
                export_error=number(fields["export_error"], "summary export_error"),
                calibration={
                    str(key): integer(count, f"summary calibration {key}")
                    for key, count in fields["calibration"].items()
                },
                shape=_shape(fields["shape"]),
                pytorch_ms=None if timed is None else number(timed, "summary pytorch"),
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
                gpu=None if gpu is None else str(gpu),
                pytorch_percentiles_ms=_percentiles(pytorch.get("percentiles_ms", {})),
                pytorch_class_iou=_class_iou(pytorch.get("class_iou", [])),
                origin=None if origin is None else Origin.from_json(origin),
                layers=tuple(map(LayerCost.from_json, fields.get("layers", ()))),
                gallery=None if gallery is None else Gallery.from_json(gallery),
                version=str(fields["fcn_deploy"]),
            )
            require(bool(found.engines), "summary engines", [], "at least one")
            found._check_classes()
            found._check_ship()
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the summary is malformed", got=f"{type(error).__name__}: {error}") from error
        return found

    def _check_classes(self) -> None:
        """Raises InputError if an IoU is that of no class."""
        for values in (self.pytorch_class_iou, *(engine.class_iou for engine in self.engines)):
            expected = 0 if self.origin is None else self.origin.spec.num_classes
            require(len(values) in (0, expected), "summary class_iou", f"{len(values)} values", f"{expected}")

    def _check_ship(self) -> None:
        """Raises InputError if an engine is to be shipped that is not there, or has missed its gate."""
        name = None if self.ship is None else self.ship.engine
        passed = [engine.file for engine in self.engines if engine.gate.passed]
        expected = f"an engine that met its gate: {', '.join(passed) or 'no engine did'}"
        require(name is None or name in passed, "summary ship", name, expected)


def _shape(value: object) -> tuple[int, int]:
    require(isinstance(value, list) and len(value) == 2, "summary shape", value, "[height, width]")
    height, width = (integer(size, "summary shape") for size in value)  # type: ignore[attr-defined]  # checked above
    return height, width
