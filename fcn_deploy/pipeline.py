"""`deploy`: from a checkpoint to verified engines, in one straight function.

checkpoint -> models -> export -> passes -> quant -> build -> runtime -> evaluate -> report
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy import __version__, steps
from fcn_deploy.build import BuildConfig, Engine
from fcn_deploy.build.engine import RequestedPrecision, TargetCpu
from fcn_deploy.data import ImageFolder
from fcn_deploy.errors import GateError, UsageError
from fcn_deploy.evaluate.accuracy import mean_iou
from fcn_deploy.evaluate.assess import Assessment, assess
from fcn_deploy.evaluate.benchmark import BenchmarkConfig, Timing, benchmark, ratio
from fcn_deploy.evaluate.gates import Verdict, judge
from fcn_deploy.files import make_folder, read_bytes, write_json
from fcn_deploy.graph import exported_spec, parse
from fcn_deploy.models.describe import SpecOptions
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.sidecar import Io
from fcn_deploy.spec import FORMAT, ModelSpec


@dataclass(frozen=True)
class DeployConfig:
    """What to deploy, on what data, and how.

    Attributes:
        weights: The checkpoint.
        calib_data: Folder of images to calibrate on.
        output: Folder for the engines; made if it is not there.
        int8: Whether to build an INT8 engine beside the FP32 one.
        variant: What the checkpoint must be, or None.
        options: What the user says about the checkpoint.
        method: How INT8 ranges are chosen.
        io: `image` or `tensor`.
        target_cpu: Where the engines will run.
        calib_size: [height, width] to resize calibration images to, or None.
        max_images: At most so many calibration images.
        data: Folder of images to judge on; where None every fifth calibration image is held out for it.
        labels: Folder of their ground truth, or None.
        threads: CPU threads.
        benchmark: How long to measure.
    """

    weights: Path
    calib_data: Path
    output: Path
    int8: bool = False
    variant: str | None = None
    options: SpecOptions = field(default_factory=SpecOptions)
    method: str = "minmax"
    io: Io = "image"
    target_cpu: TargetCpu = "generic"
    calib_size: tuple[int, int] | None = None
    max_images: int | None = None
    data: Path | None = None
    labels: Path | None = None
    threads: int | None = None
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)

    def __post_init__(self) -> None:
        if self.labels is not None and self.data is None:
            raise UsageError("labels without the images they are of", got="--labels", expected="--data and --labels")


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
    """

    model: str
    variant: str
    export_error: float
    calibration: Mapping[str, Any]
    engines: Sequence[EngineResult]
    pytorch: Timing
    pytorch_miou: float | None
    shape: tuple[int, int]

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
            "vs_pytorch": asdict(ratio(engine.timing, self.pytorch)),
            "vs_fp32": asdict(ratio(engine.timing, self.engines[0].timing)),
        }


def deploy(config: DeployConfig, progress: Progress | None = None) -> Summary:
    """Exports, simplifies, calibrates, builds, verifies and measures; ships engines only if every gate is met.

    Writes into the output folder: the exported model, the ranges (for INT8), `summary.json`, and each engine with its
    sidecar.

    Args:
        config: What to do.
        progress: Told of each step.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        GateError: A gate was missed; `summary.json` says which, and no engine was written.
        FcnDeployError: A step failed.
    """
    progress = progress or Silent()
    make_folder(config.output)
    observed, judged = _split(config)
    # Engines are tried out of sight: what stands in the output folder has met its gate.
    with tempfile.TemporaryDirectory(prefix=".fcn-deploy-", dir=config.output) as folder, ExitStack() as opened:
        staging = Path(folder)
        model, spec, export_error = _export(config, staging, progress)
        ranges = _calibrate(config, model, observed, progress) if config.int8 else None
        engines = _build(config, model, ranges, staging, progress)

        reference = steps.open_reference(f"{steps.PYTORCH}{config.weights}", spec, threads=config.threads)
        contestants = {"pytorch": opened.enter_context(reference)}
        for precision in engines:
            segmenter = Segmenter(staging / f"{precision}.onnx", threads=config.threads)
            contestants[precision] = opened.enter_context(segmenter)
        results = assess(
            reference,
            [contestants[precision] for precision in engines],
            steps.samples(judged, config.labels, "verifying", progress),
            spec.ignore_index,
        )
        image = next(iter(judged))
        timings = _measure(contestants, image, config.benchmark, progress)

    summary = Summary(
        model=model.name,
        variant=spec.variant,
        export_error=export_error,
        calibration={"observed": len(observed) if ranges else 0, "judged": len(judged)},
        engines=tuple(
            EngineResult(
                file=f"{model.stem}.{precision}.onnx",
                size=len(engine.data),
                precision=precision,
                assessment=assessment,
                verdict=judge(precision, assessment.parity, assessment.drop),
                timing=timings[precision],
            )
            for (precision, engine), assessment in zip(engines.items(), results.engines, strict=True)
        ),
        pytorch=timings["pytorch"],
        pytorch_miou=None if results.reference is None else float(mean_iou(results.reference.sum(0))),
        shape=(image.shape[0], image.shape[1]),
    )
    write_json(config.output / "summary.json", summary.to_json())
    _require_gates(summary)
    for engine, result in zip(engines.values(), summary.engines, strict=True):
        engine.save(config.output / result.file, result.verdict.gate)
        progress.stage(f"wrote {config.output / result.file}")
    return summary


def _split(config: DeployConfig) -> tuple[ImageFolder, ImageFolder]:
    """The images to observe and the images to judge on."""
    calibration = ImageFolder.open(config.calib_data, max_images=config.max_images, size=config.calib_size)
    if config.data is not None:
        return calibration, ImageFolder.open(config.data)
    return calibration.every_fifth()


def _export(config: DeployConfig, staging: Path, progress: Progress) -> tuple[Path, ModelSpec, float]:
    exported = staging / "model.onnx"
    error = steps.export(config.weights, exported, variant=config.variant, options=config.options, progress=progress)
    spec = exported_spec(parse(read_bytes(exported)))
    model = config.output / f"{spec.variant}.onnx"
    exported.replace(model)
    progress.stage(f"wrote {model}, within {error:.1e} of PyTorch")
    return model, spec, error


def _calibrate(config: DeployConfig, model: Path, observed: ImageFolder, progress: Progress) -> Path:
    ranges = model.with_suffix(".ranges.json")
    steps.calibrate(model, observed, threads=config.threads, progress=progress).save(ranges)
    progress.stage(f"wrote {ranges}")
    return ranges


def _build(
    config: DeployConfig, model: Path, ranges: Path | None, staging: Path, progress: Progress
) -> dict[RequestedPrecision, Engine]:
    engines: dict[RequestedPrecision, Engine] = {}
    precisions: tuple[RequestedPrecision, ...] = ("fp32", "int8") if ranges else ("fp32",)
    for precision in precisions:
        progress.stage(f"building {precision}")
        build = BuildConfig(precision, config.io, config.method, config.target_cpu)
        engines[precision] = steps.build(model, build, ranges if precision == "int8" else None)
        engines[precision].save(staging / f"{precision}.onnx")
    return engines


def _measure(
    contestants: Mapping[str, Segmenter], image: NDArray[np.uint8], config: BenchmarkConfig, progress: Progress
) -> dict[str, Timing]:
    progress.stage(f"measuring at {image.shape[0]}x{image.shape[1]}, image to labels, in turn")
    runs = {name: functools.partial(segmenter, image) for name, segmenter in contestants.items()}
    return {timing.name: timing for timing in benchmark(runs, config)}


def _require_gates(summary: Summary) -> None:
    failures = [f"{engine.precision}: {failure}" for engine in summary.engines for failure in engine.verdict.failures]
    if failures:
        error = GateError(
            "no engine was shipped, for a gate was missed",
            got="; ".join(failures),
            fix="calibrate on more images like those the net will see, or try another --calib-method",
        )
        error.report = summary
        raise error
