"""What is decided on the user's images before an INT8 engine is built: the calibration method, and the mix."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fcn_deploy.artifacts.precision import Budget
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.engine import BuildConfig, Engine
from fcn_deploy.engines.tensorrt.typed_graph import Base
from fcn_deploy.evaluation.comparison import Sample
from fcn_deploy.evaluation.gates import Criterion
from fcn_deploy.mixed_precision.candidates import Mixer, Target
from fcn_deploy.mixed_precision.damage import measure_sensitivity
from fcn_deploy.mixed_precision.evaluator import Judge
from fcn_deploy.mixed_precision.method_search import try_methods
from fcn_deploy.mixed_precision.search import Plan, plan_mix
from fcn_deploy.progress import Progress, Silent

# More make the order of the layers no better; the mixes themselves are judged on all images.
_SENSITIVITY_IMAGES = 8
_SILENT = Silent()


@dataclass(frozen=True)
class Decision:
    """What to build, and why.

    Attributes:
        config: With the method and the layers that were chosen.
        tried: Agreement, 0..1, by calibration method, best first; None where the method was given.
        plan: How the mix was found; None where there was no budget.
    """

    config: BuildConfig
    tried: Mapping[str, float] | None = None
    plan: Plan | None = None

    def recorded(self, engine: Engine) -> Engine:
        """Returns an engine built from the configuration, whose sidecar says why it is as it is."""
        budget = None
        if self.plan is not None:
            chosen = self.plan.chosen
            budget = Budget(str(self.plan.criterion), chosen.measured, chosen.bound, self.plan.images)
        precision = replace(engine.sidecar.precision, tried=self.tried, budget=budget)
        return replace(engine, sidecar=replace(engine.sidecar, precision=precision))


def decide(
    model: bytes,
    ranges: Ranges,
    config: BuildConfig,
    samples: Iterable[Sample],
    *,
    auto: bool = False,
    budget: Criterion | None = None,
    target: Target = "onnxruntime",
    base: Base = "fp16",
    ignore_index: int | None = None,
    threads: int | None = None,
    progress: Progress = _SILENT,
) -> Decision:
    """Chooses the calibration method, then the mix that keeps a budget.

    Args:
        model: Content of an ONNX file as `export` writes it.
        ranges: What calibration saw of it.
        config: INT8, and what is not decided here.
        samples: Images that calibration has not observed, uint8 [H, W, 3], and their truth, integer [H, W], or None
            for all of them.
        auto: Whether the method is to be chosen, by agreement.
        budget: What the mix has to keep; None leaves the layers as they are.
        target: `onnxruntime`, or `tensorrt`, whose graphs are simulated.
        base: What a graph for TensorRT computes in where it is not quantised.
        ignore_index: Truth that does not count.
        threads: CPU threads.
        progress: Told what was tried and what was chosen.

    Raises:
        GateError: Not even the net without INT8 keeps the budget.
        InputError: There are no images, one does not fit the net, or the ranges are not the model's.
        UsageError: The images cannot tell the budget's measure.
    """
    mixer = Mixer(model, ranges, config, target, base)
    with progress.working("running the exported model for reference"):
        judge = Judge(model, mixer.spec, samples, ignore_index, threads=threads)
    tried = plan = None
    if auto:
        tried = try_methods(mixer, judge, progress)
        method = next(iter(tried))
        progress.stage(f"calibration method: {method}, of {_listed(tried)} of pixels labelled alike")
        mixer = replace(mixer, config=replace(mixer.config, method=method))
    if budget is not None:
        images = judge.images[:: -(-len(judge.images) // _SENSITIVITY_IMAGES)]
        measure = functools.partial(measure_sensitivity, mixer, images, threads=threads, progress=progress)
        plan = plan_mix(mixer, budget, judge, measure, progress)
        mixer = replace(mixer, config=replace(mixer.config, int8_layers=plan.chosen.int8))
    return Decision(mixer.config, tried, plan)


def _listed(tried: Mapping[str, float]) -> str:
    return ", ".join(f"{method} {agreement:.3%}" for method, agreement in tried.items())
