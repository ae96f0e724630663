"""What an engine runs in: the library's inspector is asked after the build, on a machine with a driver."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.engines.required_int8 import require_int8
from fcn_deploy.engines.tensorrt.inspector import layer_precisions
from fcn_deploy.errors import ArtifactError, DependencyError, PrecisionError
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.log import LibraryLog

_FIX = "build with a GPU and a version that have kernels for it, or ask for another precision"


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
    """

    flavor: Flavor
    module: ModuleType
    said: LibraryLog
    plan: bytes
    host_code: bool = False
    gpus: Callable[[], tuple[Gpu, ...]] = find_gpus

    @property
    def library(self) -> str:
        """Name and version of the library."""
        return f"{self.flavor.name} {self.module.__version__}"

    def precisions(self, layers: Collection[str]) -> dict[str, str | None]:
        """Returns what layers run in, by name; None for a layer that the inspector does not tell about.

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
        return layer_precisions(text, layers)


def achieved_precision(inspection: Inspection, precision: Precision, progress: Progress) -> Precision:
    """Finds what a plan runs in.

    Args:
        inspection: The plan, and how to look into it.
        precision: What was asked for.
        progress: Told why the precision is not known, or which layers do not run as asked.

    Returns:
        The precision with what was achieved: `achieved` is `unknown` if the plan cannot be looked into here.

    Raises:
        PrecisionError: A layer does not run in the precision asked for it. There are two exceptions: a library that
            decides only when it loads a plan, and a prequantized model, which only fails if none of its INT8 layers is
            INT8. Then the difference is recorded, and told to `progress`.
    """
    flavor = inspection.flavor
    try:
        found = inspection.precisions(precision.layers)
    except (ArtifactError, DependencyError) as error:
        reason = error.what if error.got is None else f"{error.what} ({error.got})"
        progress.stage(f"What the {precision.requested.upper()} engine runs in is not known: {reason}.")
        return precision
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
        progress.stage(f"The inspector does not tell what these layers run in: {', '.join(untold)}.")
    return known


def missed_layers(precision: Precision) -> dict[str, str]:
    """Returns what those layers run in that do not run as asked, by name; empty if nothing is known."""
    found = (precision.achieved_layers or {}).items()
    asked = precision.layers
    return {name: kind for name, kind in found if kind is not None and not _as_asked(kind, asked.get(name), precision)}


def _as_asked(kind: str, asked: str | None, precision: Precision) -> bool:
    return kind == asked or (kind == "tf32" and asked == "fp32" and bool(precision.tf32))


def _summarize(precision: Precision, found: Mapping[str, str | None]) -> str:
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


def _list(layers: Mapping[str, str]) -> str:
    return ", ".join(f"{name} in {kind}" for name, kind in layers.items())
