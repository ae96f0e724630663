"""What an engine runs in: asked of the library's inspector after the build, where there is a driver to ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.engines.prequantized import require_int8
from fcn_deploy.engines.tensorrt.inspector import layer_precisions
from fcn_deploy.errors import ArtifactError, DependencyError, PrecisionError
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.log import LibraryLog

_FIX = "build for a GPU and with a version that have kernels for it, or ask for another precision"


def achieved_precision(
    flavor: Flavor,
    module: ModuleType,
    said: LibraryLog,
    plan: bytes,
    precision: Precision,
    progress: Progress,
    *,
    host_code: bool = False,
) -> Precision:
    """Looks into a plan that has just been built.

    Args:
        flavor: The library that built it.
        module: That library, loaded.
        said: Its log.
        plan: The plan.
        precision: What was asked for.
        progress: Told, once, why it cannot be known what the engine runs in, or what of it is not as asked.
        host_code: Whether the plan brings code that runs on the host: such a one is not loaded, for nobody has yet
            given leave to run that.

    Returns:
        The precision with what was achieved: `achieved` is `unknown` where nobody could look.

    Raises:
        PrecisionError: A layer does not run in the precision asked for it. Not where the library decides only when it
            loads a plan, nor where the graph brought its own Q/DQ: there what the plan says is recorded, and a
            difference is said, unless nothing at all is INT8 of what was to be.
    """
    try:
        found = _inspect(module, said, plan, precision, host_code)
    except (ArtifactError, DependencyError) as error:
        reason = error.what if error.got is None else f"{error.what} ({error.got})"
        progress.stage(f"What the {precision.requested.upper()} engine runs in is not known: {reason}.")
        return precision
    known = replace(precision, achieved=_summarize(precision, found), achieved_layers=found)
    missed = missed_layers(known)
    given = precision.method == PREQUANTIZED
    if missed and not flavor.runtime_config and not given:
        raise _not_achieved(flavor, str(module.__version__), precision, missed)
    if given and not flavor.runtime_config:
        require_int8(known, f"{flavor.name} {module.__version__}", _FIX)
    if missed and not flavor.runtime_config:
        progress.stage(f"{flavor.name} does not run all that the graph's Q/DQ ask for: {_list(missed)}.")
    elif missed:
        progress.stage(f"The plan is not all in the precision asked for, which is decided at load: {_list(missed)}.")
    untold = [name for name, kind in found.items() if kind is None]
    if untold:
        progress.stage(f"The inspector does not tell what these layers run in: {', '.join(untold)}.")
    return known


def missed_layers(precision: Precision) -> dict[str, str]:
    """Returns what those layers run in that do not run in what was asked for them; none where that is not known."""
    found = (precision.achieved_layers or {}).items()
    return {name: kind for name, kind in found if kind is not None and kind != precision.layers.get(name)}


def _inspect(
    module: Any, said: LibraryLog, plan: bytes, precision: Precision, host_code: bool
) -> dict[str, str | None]:
    if host_code:
        raise ArtifactError("the engine brings code that runs on the host, and is not loaded without leave")
    find_gpus()  # before the library is given the plan: without a driver that does not always fail cleanly
    runtime = module.Runtime(said.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ArtifactError(f"{module.__name__} cannot load it on this machine", got=said.take_errors())
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    # In this order: each belongs to the next.
    del inspector, engine, runtime
    return layer_precisions(text, precision.layers)


def _summarize(precision: Precision, found: Mapping[str, str | None]) -> str:
    """What was found in one word; see `Precision`."""
    told = {name: kind for name, kind in found.items() if kind is not None}
    if not told:
        return "unknown"
    if any(kind != precision.layers[name] for name, kind in told.items()):
        return "mixed"
    return precision.requested if len(told) == len(found) else "partial"


def _not_achieved(flavor: Flavor, version: str, precision: Precision, missed: Mapping[str, str]) -> PrecisionError:
    return PrecisionError(
        f"{flavor.name} {version} does not run every layer in the precision asked for",
        got=_list(missed),
        expected=_list({name: precision.layers[name] for name in missed}),
        fix=_FIX,
    )


def _list(layers: Mapping[str, str]) -> str:
    return ", ".join(f"{name} in {kind}" for name, kind in layers.items())
