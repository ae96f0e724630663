"""What is decided before an INT8 engine is built: the calibration method and the INT8 layers, on images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.checks import ONNXRUNTIME, OPENVINO
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.gates import Criterion
from fcn_deploy.mixed_precision.precision_map import layers_of_map, read_precision_map
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS
from fcn_deploy.workflows.backends import Job
from fcn_deploy.workflows.parameters import input_file
from fcn_deploy.workflows.samples import TruthOptions, samples
from fcn_deploy.workflows.truth import check_truth

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel
    from fcn_deploy.mixed_precision.candidates import Target
    from fcn_deploy.mixed_precision.decision import Decision


@dataclass(frozen=True)
class SearchOptions:
    """What is to be decided on images before an INT8 engine is built.

    Attributes:
        auto: Whether the calibration method is chosen.
        budget: What the mix of precisions has to keep, or None.
        precision_map: A sidecar with the mix to use, or None.
        data: The images to decide on; every fifth calibration image is held out for it if None.
        truth: Their ground truth, or None.
    """

    auto: bool = False
    budget: Criterion | None = None
    precision_map: Path | None = None
    data: ImageFolder | None = None
    truth: TruthOptions | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and self.precision_map is not None:
            got = "`precision_map` and `accuracy_budget`"
            raise UsageError("the mix of precisions is stated twice", got=got, expected="one of them")
        if (self.data is not None or self.truth is not None) and not self.decides:
            raise UsageError(
                "nothing is decided on images",
                got="`data` or `labels`",
                fix='add `accuracy_budget` or `calib_method="auto"`; fcn-deploy evaluate measures an engine',
            )
        if self.truth is not None and self.data is None:
            raise UsageError("labels without their images", got="`labels`", expected="`data` and `labels`")
        if self.budget is not None:
            self._check_budget(self.budget)

    def _check_budget(self, budget: Criterion) -> None:
        if budget.measure == "miou_drop" and self.truth is None:
            raise UsageError("a budget of mIoU needs ground truth", got=budget, expected="`data` and `labels`")
        if budget.measure == "error":
            expected = "agreement>=99% or miou_drop<=0.3, for example"
            raise UsageError("a budget limits what happens to labels", got=budget, expected=expected)

    def check_files(self) -> None:
        """Checks that the precision map is one.

        Raises:
            InputError: The file cannot be read, or is not a precision map.
        """
        if self.precision_map is not None and input_file(self.precision_map).is_file():  # a pipe is read once
            layers_of_map(self.precision_map)

    @property
    def decides(self) -> bool:
        """Whether images are needed."""
        return self.auto or self.budget is not None


def decide_precisions(
    model: ExportedModel,
    job: Job,
    ranges: Ranges,
    options: SearchOptions,
    held_out: ImageFolder | None,
    *,
    threads: int | None,
    progress: Progress,
) -> Decision:
    """Decides which layers of an engine are INT8, and by which method its ranges are chosen.

    Args:
        model: The exported model.
        job: The INT8 engine; its method is used if none is chosen.
        ranges: Of the model.
        options: What to decide.
        held_out: Calibration images that were not observed, to decide on if `options` names no others.
        threads: CPU threads.
        progress: Told of what is tried and chosen.

    Raises:
        GateError: Not even the net without INT8 keeps the budget.
        InputError: A file cannot be read or does not fit, the ground truth labels no pixel, or the precision map is of
            another net.
        UsageError: There are no images to decide on.
    """
    from fcn_deploy.mixed_precision.candidates import Candidates
    from fcn_deploy.mixed_precision.decision import Decision, decide

    config = job.config
    if options.precision_map is not None:
        config = replace(config, int8_layers=read_precision_map(options.precision_map, model))
    if not options.decides:
        return Decision(config)
    images = held_out if options.data is None else options.data
    if images is None:
        raise UsageError("no images to decide on", got="a ranges file", expected="`data`")
    reader = None
    if options.truth is not None:
        reader = options.truth.reader(model.spec)
        check_truth(images, options.truth, model.spec)
    targets: dict[str, Target] = {ONNXRUNTIME: "onnxruntime", OPENVINO: "openvino"}
    target = targets.get(job.backend, "tensorrt")
    base = job.base or "fp32" if target == "openvino" else job.tensorrt.base
    return decide(
        Candidates(model, ranges, config, target, base, job.flavor or FLAVORS["tensorrt"]),
        samples(images, options.truth, "reading images", reader),
        auto=options.auto,
        budget=options.budget,
        ignore_index=model.spec.ignore_index if reader is None else reader.ignore_index,
        threads=threads,
        progress=progress,
    )
