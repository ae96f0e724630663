"""What is decided before an engine is built: on images what is INT8, and by time how layers multiply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.diagnostics.machine import this_machine
from fcn_deploy.engines.config import Base, BuildConfig
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.criteria import Criterion
from fcn_deploy.graph.model import load_exported
from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.mixed_precision.decision import Decision, decide
from fcn_deploy.mixed_precision.kernel_tuning import Tuned
from fcn_deploy.mixed_precision.kernel_tuning import tune as choose_kernels
from fcn_deploy.mixed_precision.precision_map import read_precision_map
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows.references import samples

_SILENT = Silent()


@dataclass(frozen=True)
class PlanOptions:
    """What is to be decided on images before an INT8 engine is built.

    Attributes:
        auto: Whether the calibration method is chosen.
        budget: What the mix of precisions has to keep, or None.
        precision_map: A sidecar whose mix is taken over, or None.
        data: Folder of images to decide on; where None every fifth calibration image is held out for it.
        labels: Folder of their ground truth, or None.
        ignore_index: Truth that does not count; the net's own where None.
    """

    auto: bool = False
    budget: Criterion | None = None
    precision_map: Path | None = None
    data: Path | None = None
    labels: Path | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and self.precision_map is not None:
            raise UsageError("a mix is given, or found", got="--precision-map and --accuracy-budget", expected="one")
        if (self.data is not None or self.labels is not None) and not self.decides:
            raise UsageError(
                "nothing to decide on images",
                got="--data or --labels",
                fix="add --accuracy-budget or --calib-method auto; what judges an engine is fcn-deploy evaluate",
            )
        if self.labels is not None and self.data is None:
            raise UsageError("labels without the images they are of", got="--labels", expected="--data and --labels")
        if self.ignore_index is not None and self.labels is None:
            raise UsageError("an index to ignore, and no labels", got="--ignore-index", expected="--labels with it")
        if self.budget is None:
            return
        if self.budget.measure == "miou_drop" and self.labels is None:
            raise UsageError("a budget of mIoU needs ground truth", got=self.budget, expected="--data and --labels")
        if self.budget.measure == "error":
            raise UsageError(
                "a budget is about labels", got=self.budget, expected="agreement>=99% or miou_drop<=0.3, for example"
            )

    @property
    def decides(self) -> bool:
        """Whether images are needed."""
        return self.auto or self.budget is not None


def plan(
    model: Path,
    config: BuildConfig,
    ranges: Ranges,
    options: PlanOptions,
    held_out: ImageFolder | None,
    *,
    backend: str = OnnxRuntimeBackend.name,
    base: Base = "fp16",
    threads: int | None = None,
    progress: Progress = _SILENT,
) -> Decision:
    """Decides what an INT8 engine is like before it is built.

    Args:
        model: An exported ONNX file.
        config: INT8; its method counts where none is chosen.
        ranges: What calibration saw.
        options: What to decide.
        held_out: Calibration images that were not observed, to decide on where `options` names no others.
        backend: `onnxruntime`, or another, whose graph is simulated.
        base: What a graph for TensorRT computes in where it is not quantised.
        threads: CPU threads.
        progress: Told of what is tried and chosen.

    Raises:
        GateError: Not even the net without INT8 keeps the budget.
        InputError: A file cannot be read or does not fit, or the precision map is of another net.
        UsageError: There are no images to decide on.
    """
    exported = load_exported(model)
    if options.precision_map is not None:
        config = replace(config, int8_layers=read_precision_map(options.precision_map, exported))
    if not options.decides:
        return Decision(config)
    images = held_out if options.data is None else ImageFolder.open(options.data)
    if images is None:
        raise UsageError("no images to decide on", got="a ranges file", expected="--data DIR")
    spec = exported.spec
    ignore_index = spec.ignore_index if options.ignore_index is None else options.ignore_index
    return decide(
        Candidates(exported, ranges, config, "onnxruntime" if backend == OnnxRuntimeBackend.name else "tensorrt", base),
        samples(images, options.labels, "reading images", palette=spec.palette, ignore_index=ignore_index),
        auto=options.auto,
        budget=options.budget,
        ignore_index=ignore_index,
        threads=threads,
        progress=progress,
    )


def tune(
    model: Path,
    config: BuildConfig,
    ranges: Ranges | None,
    images: ImageShape,
    *,
    threads: int | None = None,
    progress: Progress = _SILENT,
) -> Tuned:
    """Chooses by time, on this machine, how an engine for ONNX Runtime multiplies in each layer; see `planning.tune`.

    Args:
        model: An exported ONNX file.
        config: What is to be built.
        ranges: What calibration saw, for INT8.
        images: Shape of the images to time on.
        threads: CPU threads.
        progress: Told of what was timed.

    Raises:
        ArtifactError: ONNX Runtime cannot run the model at that shape.
        InputError: The model cannot be read or is not an exported net, or the ranges are not the model's.
    """
    cpu = this_machine().cpu.name
    return choose_kernels(load_exported(model), config, ranges, images, cpu, threads=threads, progress=progress)
