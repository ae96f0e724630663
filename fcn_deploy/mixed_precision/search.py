"""Accuracy-aware search: the fastest choice of INT8 layers that keeps the user's accuracy budget.

The search starts from all layers in INT8, and reverts layers to float in the order of damage per saving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fcn_deploy.artifacts.sensitivity import LayerSensitivity, Sensitivity
from fcn_deploy.errors import GateError
from fcn_deploy.evaluation.gates import Criterion, bound, measured, met
from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.mixed_precision.damage import without
from fcn_deploy.mixed_precision.evaluator import Evaluator
from fcn_deploy.progress import Progress, Silent

_SILENT = Silent()


@dataclass(frozen=True)
class Trial:
    """A candidate that was measured against the budget.

    Attributes:
        int8: Its INT8 layers.
        measured: The criterion's measure, over all images.
        bound: The pessimistic end of its 95% interval.
        met: Whether the bound keeps the limit.
    """

    int8: tuple[str, ...]
    measured: float
    bound: float
    met: bool


@dataclass(frozen=True)
class SearchResult:
    """What the search found.

    Attributes:
        criterion: The budget.
        chosen: The candidate that was chosen; it meets the budget.
        trials: Every candidate that was measured, in order, the chosen one among them.
        images: How many images it was measured on.
    """

    criterion: Criterion
    chosen: Trial
    trials: tuple[Trial, ...]
    images: int


def revert_order(sensitivity: Sensitivity) -> list[str]:
    """Returns the INT8 layers in the order in which they revert to float: most damage per saving first.

    Layers in which INT8 saves nothing come before all others.
    """
    layers = [layer for layer in sensitivity.layers if layer.int8]

    def worth(layer: LayerSensitivity) -> float:
        return sensitivity.damage(layer) / layer.saving if layer.saving > 0 else float("inf")

    return [layer.name for layer in sorted(layers, key=worth, reverse=True)]


def search_layers(
    candidates: Candidates,
    criterion: Criterion,
    evaluator: Evaluator,
    measure: Callable[[], Sensitivity],
    progress: Progress = _SILENT,
) -> SearchResult:
    """Searches the fastest candidate whose pessimistic bound meets a budget.

    Layers revert to float one by one until the budget is met. Then those that did not have to revert become INT8 again,
    the ones that save most first.

    Args:
        candidates: What is quantised, and where the search starts.
        criterion: The budget.
        evaluator: Holds the images, two or more.
        measure: Measures the sensitivity of the first candidate; only called if that misses the budget.
        progress: Told of each candidate.

    Raises:
        GateError: Not even the net without INT8 meets the budget.
        UsageError: The criterion's measure needs ground truth, and the evaluator has none.
    """
    trials: list[Trial] = []

    def attempt(int8: Sequence[str]) -> Trial:
        found = evaluator.evaluate(candidates.make(int8))
        trial = Trial(tuple(int8), measured(criterion, found), bound(criterion, found), met(criterion, found))
        trials.append(trial)
        progress.stage(_describe(candidates, criterion, trial))
        return trial

    current = attempt(candidates.start)
    if not current.met:
        _require_possible(criterion, attempt(()))
        current = _search(candidates, measure(), current, attempt)
    return SearchResult(criterion, current, tuple(trials), len(evaluator.images))


def _search(
    candidates: Candidates, sensitivity: Sensitivity, missed: Trial, attempt: Callable[[Sequence[str]], Trial]
) -> Trial:
    current, reverted = missed, []
    for name in revert_order(sensitivity):
        reverted.append(name)
        current = attempt(without(current.int8, name))
        if current.met:
            break
    saving = {layer.name: layer.saving for layer in sensitivity.layers}
    # Not the last one: the budget was missed before it reverted.
    for name in sorted(reverted[:-1], key=lambda name: -saving[name]):
        if saving[name] > 0:
            trial = attempt([layer for layer in candidates.start if layer in current.int8 or layer == name])
            current = trial if trial.met else current
    return current


def _require_possible(criterion: Criterion, trial: Trial) -> None:
    if not trial.met:
        raise GateError(
            "the accuracy budget cannot be met, not even without INT8",
            got=f"{trial.measured:.4g}, at the pessimistic end of its 95% interval {trial.bound:.4g}",
            expected=str(criterion),
            fix="allow more, or name more images with `data`: the interval narrows with their number",
        )


def _describe(candidates: Candidates, criterion: Criterion, trial: Trial) -> str:
    floats = [name for name in candidates.start if name not in trial.int8]
    if not trial.int8:
        where = "in no layer"
    elif floats:
        where = f"without {', '.join(floats)}"
    else:
        where = "in every layer asked for"
    return (
        f"INT8 {where}: {criterion.measure} {trial.measured:.4f}, bound {trial.bound:.4f}, "
        f"{'meets' if trial.met else 'misses'} {criterion}"
    )
