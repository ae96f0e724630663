"""Accuracy budgets: the cheapest mix of precisions that keeps what the user asks for.

The search starts from all INT8 and gives layers back to float in the order of damage per saving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fcn_deploy.errors import GateError
from fcn_deploy.evaluation.gates import Criterion, bound, measured, met
from fcn_deploy.mixed_precision.candidates import Mixer
from fcn_deploy.mixed_precision.damage import LayerSensitivity, Sensitivity, without
from fcn_deploy.mixed_precision.evaluator import Judge
from fcn_deploy.progress import Progress, Silent

_SILENT = Silent()


@dataclass(frozen=True)
class Trial:
    """A mix that was held against the budget.

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
class Plan:
    """What the search found.

    Attributes:
        criterion: The budget.
        chosen: The mix; it meets the budget.
        trials: Every mix that was held against it, in order, the chosen one among them.
        images: How many images it rests on.
    """

    criterion: Criterion
    chosen: Trial
    trials: tuple[Trial, ...]
    images: int


def giving_back_order(sensitivity: Sensitivity) -> list[str]:
    """Returns the INT8 layers of a mix in the order in which they are given back: most damage per saving first.

    Layers in which INT8 saves nothing come before all others.
    """
    layers = [layer for layer in sensitivity.layers if layer.int8]

    def worth(layer: LayerSensitivity) -> float:
        return sensitivity.damage(layer) / layer.saving if layer.saving > 0 else float("inf")

    return [layer.name for layer in sorted(layers, key=worth, reverse=True)]


def plan_mix(
    mixer: Mixer,
    criterion: Criterion,
    judge: Judge,
    measure: Callable[[], Sensitivity],
    progress: Progress = _SILENT,
) -> Plan:
    """Searches the cheapest mix whose pessimistic bound meets a budget.

    Layers are given back one by one until it is met. Then those that it turns out to do without are made INT8 again,
    the ones that save most first.

    Args:
        mixer: What is quantised, and where the search starts.
        criterion: The budget.
        judge: Holds the images, two or more.
        measure: Measures the sensitivity of the mixer's own mix; called if that misses the budget.
        progress: Told of each mix.

    Raises:
        GateError: Not even the net without INT8 meets it.
        UsageError: The judge's images cannot tell the criterion's measure.
    """
    trials: list[Trial] = []

    def attempt(int8: Sequence[str]) -> Trial:
        assessment = judge.assess(mixer.make(int8))
        trial = Trial(
            tuple(int8), measured(criterion, assessment), bound(criterion, assessment), met(criterion, assessment)
        )
        trials.append(trial)
        progress.stage(_describe(mixer, criterion, trial))
        return trial

    current = attempt(mixer.start)
    if not current.met:
        _require_possible(criterion, attempt(()))
        current = _search(mixer, measure(), current, attempt)
    return Plan(criterion, current, tuple(trials), len(judge.images))


def _search(mixer: Mixer, sensitivity: Sensitivity, missed: Trial, attempt: Callable[[Sequence[str]], Trial]) -> Trial:
    current, given_back = missed, []
    for name in giving_back_order(sensitivity):
        given_back.append(name)
        current = attempt(without(current.int8, name))
        if current.met:
            break
    saving = {layer.name: layer.saving for layer in sensitivity.layers}
    # Not the last one given back: without that the budget was missed.
    for name in sorted(given_back[:-1], key=lambda name: -saving[name]):
        if saving[name] > 0:
            trial = attempt([layer for layer in mixer.start if layer in current.int8 or layer == name])
            current = trial if trial.met else current
    return current


def _require_possible(criterion: Criterion, trial: Trial) -> None:
    if not trial.met:
        raise GateError(
            "the accuracy budget cannot be met, not even without INT8",
            got=f"{trial.measured:.4g}, at the pessimistic end of its 95% interval {trial.bound:.4g}",
            expected=str(criterion),
            fix="allow more, or name more images with --data: the interval narrows with their number",
        )


def _describe(mixer: Mixer, criterion: Criterion, trial: Trial) -> str:
    floats = [name for name in mixer.start if name not in trial.int8]
    given_back = f"without {', '.join(floats)}" if floats else "all"
    return (
        f"INT8 {given_back if trial.int8 else 'nowhere'}: {criterion.measure} {trial.measured:.4f}, "
        f"bound {trial.bound:.4f}, {'meets' if trial.met else 'misses'} {criterion}"
    )
