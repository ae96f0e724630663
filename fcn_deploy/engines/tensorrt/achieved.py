"""What an engine runs in: by the library's inspector on a machine with a driver, by the builder's log elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

from fcn_deploy.artifacts.plan import Plan
from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.engines.required_int8 import require_int8
from fcn_deploy.engines.tensorrt.advice import advise_fp16
from fcn_deploy.engines.tensorrt.inspector import inspected_layers, layer_precisions
from fcn_deploy.engines.tensorrt.layer_table import read_layer_table
from fcn_deploy.engines.tensorrt.plan_reader import read_plan
from fcn_deploy.engines.tensorrt.traffic import describe
from fcn_deploy.errors import ArtifactError, DependencyError, PrecisionError
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.log import LibraryLog

Source = Literal["inspector", "log"]
Layers = Sequence[Mapping[str, Any]]
Precisions = Mapping[str, str | None]

_FIX = "build with a GPU and a version that have kernels for it, or ask for another precision"
_WHO = {"inspector": "the inspector", "log": "the builder's log"}


@dataclass(frozen=True, eq=False)
class Inspection:
    """A plan that has just been built, and how to look into it.

    Attributes:
        flavor: The library that built it.
        module: That library, loaded.
        said: Its log.
        plan: The plan.
        host_code: Whether the plan brings code that runs on the host. Such a plan is not loaded: the user has not
            allowed that yet.
        gpus: Returns the GPUs of this machine.
        table: The layer table in the builder's log; None if there was none.
    """

    flavor: Flavor
    module: ModuleType
    said: LibraryLog
    plan: bytes
    host_code: bool = False
    gpus: Callable[[], tuple[Gpu, ...]] = find_gpus
    table: str | None = None

    @property
    def library(self) -> str:
        """Name and version of the library."""
        return f"{self.flavor.name} {self.module.__version__}"

    def inspect(self) -> Layers:
        """Returns the layers of the plan, as the inspector tells of them.

        Raises:
            ArtifactError: The plan cannot be loaded, or the inspector's answer cannot be read.
            DependencyError: There is no driver, or no GPU.
        """
        if self.host_code:
            raise ArtifactError("the engine brings code that runs on the host, and is not loaded without permission")
        self.gpus()  # before the library gets the plan: without a driver it does not always fail cleanly
        module: Any = self.module
        runtime = module.Runtime(self.said.logger)
        engine = runtime.deserialize_cuda_engine(self.plan)
        if engine is None:
            raise ArtifactError(f"{module.__name__} cannot load it on this machine", got=self.said.take_errors())
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
        # In this order: each belongs to the next.
        del inspector, engine, runtime
        return inspected_layers(text)

    def read_log(self) -> Layers:
        """Returns the layers of the plan, as the builder's log tells of them.

        Raises:
            ArtifactError: The log has no layer table, or one of a form that is not known.
        """
        if self.table is None:
            raise ArtifactError(f"there is no layer table in the log of {self.library}")
        try:
            return read_layer_table(self.table)
        except ArtifactError as error:
            what = f"the layer table in the log of {self.library} is not understood"
            raise ArtifactError(what, got=error.got) from error


@dataclass(frozen=True)
class Achieved:
    """What a plan is.

    Attributes:
        precision: What was asked for, and what was achieved; `unknown` if nothing told of it.
        plan: Its layers; None if nothing told of them.
    """

    precision: Precision
    plan: Plan | None = None


def find_achieved(inspection: Inspection, precision: Precision, progress: Progress) -> Achieved:
    """Finds what a plan runs in: by its inspector if there is a GPU, else by the builder's log.

    Args:
        inspection: The plan, and how to look into it.
        precision: What was asked for.
        progress: Told what the plan does and whether FP16 may do better, or why that is not known; if inspector and
            log differ; and which layers do not run as asked.

    Raises:
        PrecisionError: A layer does not run in the precision asked for it. There are two exceptions: a library that
            decides only when it loads a plan, and a prequantized model, which only fails if none of its INT8 layers is
            INT8. Then the difference is recorded, and told to `progress`.
    """
    told, reasons = _ask(inspection)
    if not told:
        why = ", and ".join(reasons)
        progress.stage(f"What the {precision.requested.upper()} engine runs in is not known: {why}.")
        return Achieved(precision)
    found = {source: layer_precisions(layers, precision.layers) for source, layers in told.items()}
    if len(found) > 1:
        _tell_differences(found["inspector"], found["log"], progress)
    source: Source = "inspector" if "inspector" in told else "log"
    checked = _checked(inspection, precision, found[source], _WHO[source], progress)
    plan = _read_plan(told[source], source, progress)
    advice = None if plan is None else advise_fp16(plan)
    if advice is not None:
        progress.stage(advice)
    return Achieved(checked, plan)


def _ask(inspection: Inspection) -> tuple[dict[Source, Layers], list[str]]:
    """Returns what each source tells, and why one does not."""
    sources: dict[Source, Callable[[], Layers]] = {"inspector": inspection.inspect, "log": inspection.read_log}
    told: dict[Source, Layers] = {}
    reasons = []
    for source, ask in sources.items():
        try:
            told[source] = ask()
        except (ArtifactError, DependencyError) as error:
            reasons.append(_reason(error))
    return told, reasons


def _tell_differences(inspected: Precisions, logged: Precisions, progress: Progress) -> None:
    differ = {name for name, kind in inspected.items() if None not in (kind, logged[name]) and kind != logged[name]}
    if differ:
        listed = [_list({name: kind for name, kind in each.items() if name in differ}) for each in (inspected, logged)]
        progress.stage(
            f"The inspector and the builder's log differ, and the inspector counts: it says {listed[0]}; the log says "
            f"{listed[1]}."
        )


def _read_plan(layers: Layers, source: Source, progress: Progress) -> Plan | None:
    try:
        plan = read_plan(layers, source)
    except ArtifactError as error:
        progress.stage(f"The layers of the plan are not recorded: {_reason(error)}.")
        return None
    progress.stage(f"The plan, by {_WHO[source]}: {describe(plan)}.")
    return plan


def _checked(
    inspection: Inspection, precision: Precision, found: Precisions, who: str, progress: Progress
) -> Precision:
    """Returns the precision with what was achieved; what is not as asked is told or refused."""
    flavor = inspection.flavor
    known = replace(precision, achieved=_summarize(precision, found), achieved_layers=found)
    missed = missed_layers(known)
    prequantized = precision.method == PREQUANTIZED
    if missed and not flavor.runtime_config and not prequantized:
        raise _not_achieved(inspection.library, precision, missed)
    if prequantized and not flavor.runtime_config:
        require_int8(known, inspection.library, _FIX)
    if missed and not flavor.runtime_config:
        progress.stage(f"{flavor.name} does not run all that the graph's Q/DQ ask for: {_list(missed)}.")
    elif missed:
        progress.stage(f"The plan is not all in the precision asked for, which is decided at load: {_list(missed)}.")
    untold = [name for name, kind in found.items() if kind is None]
    if untold:
        progress.stage(f"{who.capitalize()} does not tell what these layers run in: {', '.join(untold)}.")
    return known


def missed_layers(precision: Precision) -> dict[str, str]:
    """Returns what those layers run in that do not run as asked, by name; empty if nothing is known."""
    found = (precision.achieved_layers or {}).items()
    asked = precision.layers
    return {name: kind for name, kind in found if kind is not None and not _as_asked(kind, asked.get(name), precision)}


def _as_asked(kind: str, asked: str | None, precision: Precision) -> bool:
    return kind == asked or (kind == "tf32" and asked == "fp32" and bool(precision.tf32))


def _summarize(precision: Precision, found: Precisions) -> str:
    """What was found in one word; see `Precision`."""
    told = {name: kind for name, kind in found.items() if kind is not None}
    if not told:
        return "unknown"
    if any(not _as_asked(kind, precision.layers[name], precision) for name, kind in told.items()):
        return "mixed"
    return precision.requested if len(told) == len(found) else "partial"


def _not_achieved(library: str, precision: Precision, missed: Mapping[str, str]) -> PrecisionError:
    return PrecisionError(
        f"{library} does not run every layer in the precision asked for",
        got=_list(missed),
        expected=_list({name: precision.layers[name] for name in missed}),
        fix=_FIX,
    )


def _list(layers: Precisions) -> str:
    return ", ".join(f"{name} in {kind}" for name, kind in layers.items())


def _reason(error: ArtifactError | DependencyError) -> str:
    return error.what if error.got is None else f"{error.what} ({error.got})"
