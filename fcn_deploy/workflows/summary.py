"""The outcome of a deployment, as `summary.json` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.json import FORMAT
from fcn_deploy.evaluation.accuracy import mean_iou
from fcn_deploy.evaluation.comparison import Assessment
from fcn_deploy.evaluation.gates import Verdict
from fcn_deploy.evaluation.latency import Timing, ratio


@dataclass(frozen=True, eq=False)
class EngineResult:
    """One engine of a deployment.

    Attributes:
        file: Its name in the output folder.
        size: In bytes.
        precision: `fp32` or `int8`.
        assessment: Against PyTorch.
        verdict: Of its gate.
        timing: Image to labels.
    """

    file: str
    size: int
    precision: str
    assessment: Assessment
    verdict: Verdict
    timing: Timing


@dataclass(frozen=True, eq=False)
class Summary:
    """The outcome of a deployment.

    Attributes:
        model: Name of the exported ONNX file.
        variant: Of the net.
        export_error: Largest relative error of the export against PyTorch.
        calibration: How many images were observed and how many judged on.
        engines: FP32, and INT8 where asked for.
        pytorch: Timing of the reference.
        pytorch_miou: Of the reference in points, where there are labels.
        shape: Of the image the timings are of, [height, width].
        percentiles: Of latency, to report.
    """

    model: str
    variant: str
    export_error: float
    calibration: Mapping[str, Any]
    engines: Sequence[EngineResult]
    pytorch: Timing
    pytorch_miou: float | None
    shape: tuple[int, int]
    percentiles: tuple[float, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate was met."""
        return all(engine.verdict.gate.passed for engine in self.engines)

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as JSON data, with its format number."""
        return {
            "format": FORMAT,
            "fcn_deploy": __version__,
            "passed": self.passed,
            "model": self.model,
            "variant": self.variant,
            "export_error": self.export_error,
            "calibration": dict(self.calibration),
            "shape": list(self.shape),
            "pytorch": {"median_ms": self.pytorch.median, "miou": self.pytorch_miou},
            "engines": [self._engine_json(engine) for engine in self.engines],
        }

    def _engine_json(self, engine: EngineResult) -> dict[str, Any]:
        confusion, drop = engine.assessment.confusion, engine.assessment.drop
        return {
            "file": engine.file,
            "bytes": engine.size,
            "precision": engine.precision,
            "gate": asdict(engine.verdict.gate),
            "failures": list(engine.verdict.failures),
            "parity": asdict(engine.assessment.parity),
            "miou": None if confusion is None else float(mean_iou(confusion.sum(0))),
            "miou_drop": None if drop is None else asdict(drop),
            "median_ms": engine.timing.median,
            "percentiles_ms": {f"{share:g}": engine.timing.percentile(share) for share in self.percentiles},
            "vs_pytorch": asdict(ratio(engine.timing, self.pytorch)),
            "vs_fp32": asdict(ratio(engine.timing, self.engines[0].timing)),
        }
