"""`deploy`: from a checkpoint to verified engines, in one straight function.

checkpoint -> models -> export -> passes -> quant -> build -> runtime -> evaluate -> report
"""

from __future__ import annotations

import functools
import itertools
import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import Io, sidecar_path
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.labels import find_labels
from fcn_deploy.engines.config import DEFAULT_METHOD, BuildConfig, RequestedPrecision, TargetCpu
from fcn_deploy.engines.engine import Engine
from fcn_deploy.errors import ArtifactError, GateError, UsageError
from fcn_deploy.evaluation.accuracy import mean_iou
from fcn_deploy.evaluation.comparison import assess
from fcn_deploy.evaluation.criteria import Criterion
from fcn_deploy.evaluation.gates import AskedGate, criteria_by_precision, judge
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, benchmark
from fcn_deploy.files import check_writable, output_folder, write_json
from fcn_deploy.graph.model import load_exported
from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.mixed_precision.damage import measure_sensitivity
from fcn_deploy.mixed_precision.decision import Decision, decide
from fcn_deploy.mixed_precision.method_search import AUTO
from fcn_deploy.models.spec_options import SpecOptions
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.cpu import has_vnni
from fcn_deploy.workflows import references as sources
from fcn_deploy.workflows import steps
from fcn_deploy.workflows.summary import EngineResult, Summary

_log = logging.getLogger(__name__)
_FEW_JUDGED = 20
# Where INT8 misses its gate: how many layers are named, and on how many images they are found.
_SUSPECTS = 3
_SUSPECTED_ON = 4


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
        method: How INT8 ranges are chosen; `auto` tries the methods on every fifth image that would be observed.
        io: `image` or `tensor`.
        target_cpu: Where the engines will run.
        calib_size: [height, width] to resize calibration images to, or None.
        max_images: At most so many calibration images.
        data: Folder of images to judge on; where None every fifth calibration image is held out for it.
        labels: Folder of their ground truth, or None.
        gates: What the engines must keep, in place of the thresholds of the precisions they are for.
        threads: CPU threads.
        benchmark: How long to measure.
    """

    weights: Path
    calib_data: Path
    output: Path
    int8: bool = False
    variant: str | None = None
    options: SpecOptions = field(default_factory=SpecOptions)
    method: str = DEFAULT_METHOD
    io: Io = "image"
    target_cpu: TargetCpu = "generic"
    calib_size: tuple[int, int] | None = None
    max_images: int | None = None
    data: Path | None = None
    labels: Path | None = None
    gates: tuple[AskedGate, ...] = ()
    threads: int | None = None
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)

    def __post_init__(self) -> None:
        if self.labels is not None and self.data is None:
            raise UsageError("labels without the images they are of", got="--labels", expected="--data and --labels")
        for precision in self.precisions:
            self.build_config(precision)
        self.criteria()

    @property
    def precisions(self) -> tuple[RequestedPrecision, ...]:
        """What is built, FP32 first."""
        return ("fp32", "int8") if self.int8 else ("fp32",)

    def build_config(self, precision: RequestedPrecision) -> BuildConfig:
        """Returns what is asked of the builder.

        Raises:
            UsageError: An option is none that it knows.
        """
        method = DEFAULT_METHOD if self.method == AUTO else self.method
        int8 = BuildConfig("int8", self.io, method, self.target_cpu)
        return int8 if precision == "int8" else int8.as_float(precision)

    def criteria(self) -> dict[str, tuple[Criterion, ...]]:
        """Returns, for each precision that has gates of its own, what its engine must keep.

        Raises:
            UsageError: A gate is for what is not built or not measured.
        """
        not_measured = {}
        if self.labels is None:
            not_measured["miou_drop"] = "name images and their ground truth with --data and --labels"
        if self.io == "image":
            not_measured["error"] = "build with --io tensor, for engines that give logits"
        return criteria_by_precision(self.gates, self.precisions, not_measured)


def deploy(config: DeployConfig, progress: Progress | None = None) -> Summary:
    """Exports, simplifies, calibrates, builds, verifies and measures; ships engines only if every gate is met.

    Writes into the output folder: the exported model, the ranges (for INT8), each engine with its sidecar, and
    `summary.json`. What an earlier deployment of the same net left there is replaced or removed.

    Args:
        config: What to do.
        progress: Told of each step.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        GateError: A gate was missed; `summary.json` says which, and there is no engine in the folder.
        FcnDeployError: A step failed; the folder is as it was.
    """
    progress = progress or Silent()
    criteria = config.criteria()
    _require_target(config)
    observed, judged = _split(config)
    decided_on = None
    if config.int8 and config.method == AUTO:
        observed, decided_on = observed.every_fifth()
    if len(judged) < _FEW_JUDGED:
        _log.warning("the gate will rest on %d images; name more with --data, or calibrate on more", len(judged))
    # Everything is made and tried out of sight: what stands in the output folder belongs together and met its gates.
    with (
        output_folder(config.output),
        tempfile.TemporaryDirectory(prefix=".fcn-deploy-", dir=config.output) as folder,
        ExitStack() as opened,
    ):
        model = Path(folder, "model.onnx")
        export_error = steps.export(
            config.weights, model, variant=config.variant, options=config.options, progress=progress
        )
        spec = load_exported(model).spec
        files = OutputFiles(config.output, spec.variant)
        files.check_writable()
        ranges = steps.calibrate(model, observed, threads=config.threads, progress=progress) if config.int8 else None
        decision = None
        if ranges is not None and decided_on is not None:
            decision = decide(
                Candidates(load_exported(model), ranges, config.build_config("int8")),
                [(image, None) for image in decided_on],
                auto=True,
                threads=config.threads,
                progress=progress,
            )
        engines = _build(config, model, ranges, decision, progress)

        reference = sources.open_reference(
            f"{sources.PYTORCH}{config.weights}", spec, model=config.options.model, threads=config.threads
        )
        contestants = {"pytorch": opened.enter_context(reference)}
        for precision in engines:
            segmenter = Segmenter(model.with_name(f"{precision}.onnx"), threads=config.threads)
            contestants[precision] = opened.enter_context(segmenter)
        results = assess(
            reference,
            [contestants[precision] for precision in engines],
            sources.samples(
                judged,
                config.labels,
                "verifying",
                palette=spec.palette,
                ignore_index=spec.ignore_index,
                progress=progress,
            ),
            spec.ignore_index,
        )
        image = next(iter(judged))
        timings = _measure(contestants, image, config.benchmark, progress)

        summary = Summary(
            model=files.model.name,
            variant=spec.variant,
            export_error=export_error,
            calibration={"observed": len(observed) if ranges else 0, "judged": len(judged)},
            engines=tuple(
                EngineResult(
                    file=files.engine(precision).name,
                    size=len(engine.data),
                    precision=precision,
                    assessment=assessment,
                    verdict=judge(precision, assessment.parity, assessment.drop, criteria.get(precision, ())),
                    timing=timings[precision],
                )
                for (precision, engine), assessment in zip(engines.items(), results.engines, strict=True)
            ),
            pytorch=timings["pytorch"],
            pytorch_miou=None if results.reference is None else float(mean_iou(results.reference.sum(0))),
            shape=(image.shape[0], image.shape[1]),
            percentiles=config.benchmark.percentiles,
        )
        suspects = ""
        if ranges is not None and any(not e.verdict.gate.passed for e in summary.engines if e.precision == "int8"):
            suspects = _suspects(
                Candidates(load_exported(model), ranges, _int8_config(config, decision)), judged, config, progress
            )
        _publish(files, model, ranges, engines, summary, progress)
    _require_gates(summary, suspects)
    return summary


@dataclass(frozen=True)
class OutputFiles:
    """Where a deployment puts things.

    Attributes:
        folder: The output folder.
        variant: Of the net.
    """

    folder: Path
    variant: str

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.folder / f"{self.variant}.onnx"

    @property
    def ranges(self) -> Path:
        """What calibration saw."""
        return self.folder / f"{self.variant}.ranges.json"

    @property
    def summary(self) -> Path:
        """The outcome."""
        return self.folder / "summary.json"

    def engine(self, precision: str) -> Path:
        """The engine of a precision."""
        return self.folder / f"{self.variant}.{precision}.onnx"

    def check_writable(self) -> None:
        """Checks that none of them is a folder or the like.

        Raises:
            InputError: One is.
        """
        engines = [self.engine(precision) for precision in ("fp32", "int8")]
        for path in (self.model, self.ranges, self.summary, *engines, *map(sidecar_path, engines)):
            check_writable(path)

    def remove_engines(self) -> list[Path]:
        """Removes engines and ranges that are not of this deployment; sidecars first, without which nothing runs.

        Returns:
            What was removed.
        """
        engines = [self.engine(precision) for precision in ("fp32", "int8")]
        found = [path for path in (*map(sidecar_path, engines), *engines, self.ranges) if path.exists()]
        for path in found:
            path.unlink()
        return found


def _require_target(config: DeployConfig) -> None:
    """What is built here is verified here, so it has to run here."""
    if config.int8 and config.target_cpu == "vnni" and not has_vnni():
        raise ArtifactError(
            "an INT8 engine for CPUs with VNNI cannot be verified on this one",
            fix="deploy with --target-cpu generic, or build-engine --target-cpu vnni and verify where it will run",
        )


def _split(config: DeployConfig) -> tuple[ImageFolder, ImageFolder]:
    """The images to observe and the images to judge on."""
    calibration = ImageFolder.open(config.calib_data, max_images=config.max_images, size=config.calib_size)
    if config.data is None:
        return calibration.every_fifth()
    judged = ImageFolder.open(config.data)
    if config.labels is not None:
        find_labels(judged.paths, config.labels)
    return calibration, judged


def _build(
    config: DeployConfig, model: Path, ranges: Ranges | None, decision: Decision | None, progress: Progress
) -> dict[RequestedPrecision, Engine]:
    engines: dict[RequestedPrecision, Engine] = {}
    for precision in config.precisions:
        with progress.working(f"building {precision}"):
            if precision == "int8" and decision is not None:
                engines[precision] = decision.recorded(steps.build(model, decision.config, ranges))
            else:
                engines[precision] = steps.build(model, config.build_config(precision), ranges)
        engines[precision].save(model.with_name(f"{precision}.onnx"))
    return engines


def _measure(
    contestants: Mapping[str, Segmenter], image: NDArray[np.uint8], config: BenchmarkConfig, progress: Progress
) -> dict[str, Timing]:
    runs = {name: functools.partial(segmenter, image) for name, segmenter in contestants.items()}
    text = f"measuring at {image.shape[0]}x{image.shape[1]}, image to labels, in turn"
    with progress.measuring(text) as show:
        return {timing.name: timing for timing in benchmark(runs, config, show)}


def _publish(
    files: OutputFiles,
    model: Path,
    ranges: Ranges | None,
    engines: Mapping[RequestedPrecision, Engine],
    summary: Summary,
    progress: Progress,
) -> None:
    removed = files.remove_engines()
    model.replace(files.model)
    written = [files.model]
    if ranges is not None:
        ranges.save(files.ranges)
        written.append(files.ranges)
    if summary.passed:
        for engine, result in zip(engines.values(), summary.engines, strict=True):
            engine.save(files.folder / result.file, result.verdict.gate)
            written.append(files.folder / result.file)
    write_json(files.summary, summary.to_json())
    for path in (*written, files.summary):
        progress.stage(f"wrote {path}")
    for path in removed:
        if not path.exists():
            progress.stage(f"removed {path}, which was of an earlier deployment")


def _int8_config(config: DeployConfig, decision: Decision | None) -> BuildConfig:
    return config.build_config("int8") if decision is None else decision.config


def _suspects(candidates: Candidates, judged: ImageFolder, config: DeployConfig, progress: Progress) -> str:
    """Says which layers cost the most, on some of the images that were judged."""
    images = list(itertools.islice(judged, _SUSPECTED_ON))
    found = measure_sensitivity(candidates, images, threads=config.threads, progress=progress)
    worst = found.by_damage()[:_SUSPECTS]
    return ", ".join(f"{layer.name} ({found.damage(layer):.2%} of pixels)" for layer in worst)


def _require_gates(summary: Summary, suspects: str) -> None:
    failures = [f"{engine.precision}: {failure}" for engine in summary.engines for failure in engine.verdict.failures]
    if failures:
        only_int8 = all(engine.verdict.gate.passed for engine in summary.engines if engine.precision != "int8")
        error = GateError(
            "no engine was shipped, for a gate was missed",
            got="; ".join(failures) + (f"; most damage is done in INT8 by {suspects}" if suspects else ""),
            fix="calibrate on more images like those the net will see, or with another --calib-method"
            if only_int8
            else None,
        )
        error.report = summary
        raise error
