"""What is decided on the user's images before an INT8 engine is built: the calibration method and the INT8 layers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fcn_deploy.artifacts.precision import Budget
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.engine import Engine
from fcn_deploy.evaluation.comparison import Sample
from fcn_deploy.evaluation.gates import Criterion
from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.mixed_precision.damage import measure_sensitivity
from fcn_deploy.mixed_precision.evaluator import Evaluator
from fcn_deploy.mixed_precision.method_search import try_methods
from fcn_deploy.mixed_precision.search import SearchResult, search_layers
from fcn_deploy.progress import Progress, Silent

# More images do not improve the order of the layers; the candidates themselves are evaluated on all images.
_SENSITIVITY_IMAGES = 8
_SILENT = Silent()


@dataclass(frozen=True)
class Decision:
    """What to build, and why.

    Attributes:
        config: With the method and the layers that were chosen.
        tried: Agreement, 0..1, by calibration method, best first; None if the user chose the method.
        search: How the INT8 layers were found; None if there was no budget.
    """

    config: BuildConfig
    tried: Mapping[str, float] | None = None
    search: SearchResult | None = None

    def recorded(self, engine: Engine) -> Engine:
        """Returns an engine that was built from the configuration, with the decision in its sidecar."""
        budget = None
        if self.search is not None:
            chosen = self.search.chosen
            budget = Budget(str(self.search.criterion), chosen.measured, chosen.bound, self.search.images)
        precision = replace(engine.sidecar.precision, tried=self.tried, budget=budget)
        return replace(engine, sidecar=replace(engine.sidecar, precision=precision))


def decide(
    candidates: Candidates,
    samples: Iterable[Sample],
    *,
    auto: bool = False,
    budget: Criterion | None = None,
    ignore_index: int | None = None,
    threads: int | None = None,
    progress: Progress = _SILENT,
) -> Decision:
    """Chooses the calibration method, then the INT8 layers that keep a budget.

    Args:
        candidates: The model, its ranges, and what is not decided here.
        samples: Images that calibration has not seen, uint8 [H, W, 3], and their truth, integer [H, W]; or None as the
            truth of every image.
        auto: Whether to choose the method, by agreement.
        budget: What the engine has to keep; None keeps the layers as they are.
        ignore_index: Truth that does not count.
        threads: CPU threads.
        progress: Told what was tried and what was chosen.

    Raises:
        GateError: Not even the net without INT8 keeps the budget.
        InputError: There are no images, or one does not fit the net.
        UsageError: The budget's measure needs ground truth, which is missing.
    """
    with progress.working("running the exported model for reference"):
        evaluator = Evaluator(candidates.model, samples, ignore_index, threads=threads)
    tried = search = None
    if auto:
        tried = try_methods(candidates, evaluator, progress)
        method = next(iter(tried))
        listed = ", ".join(f"{name} {agreement:.3%}" for name, agreement in tried.items())
        progress.stage(f"calibration method: {method}, by agreement: {listed}")
        candidates = replace(candidates, config=replace(candidates.config, method=method))
    if budget is not None:
        images = evaluator.images[:: -(-len(evaluator.images) // _SENSITIVITY_IMAGES)]
        measure = functools.partial(measure_sensitivity, candidates, images, threads=threads, progress=progress)
        search = search_layers(candidates, budget, evaluator, measure, progress)
        candidates = replace(candidates, config=replace(candidates.config, int8_layers=search.chosen.int8))
    return Decision(candidates.config, tried, search)
