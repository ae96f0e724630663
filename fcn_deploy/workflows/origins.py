"""What a deployment was made from, for its summary: versions, hashes, layers, and the command that repeats it."""

from __future__ import annotations

import inspect
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcn_deploy.artifacts.origin import LayerCost, Origin
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import Source
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.data.folders import ImageFolder

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "pillow", "torch")

# Parameters that a repetition has no use for.
_NOT_REPEATED = ("progress", "resume")
# Parameters whose value is a list in one word, and those whose option is given once for each value.
_JOINED, _REPEATED = ("mean", "std", "percentile", "ignore_index"), ("gate", "weights_ignore")
_SHAPES, _SIZES = ("min_shape", "opt_shape", "max_shape"), ("calib_size", "shape")
_SHORT, _LONG = {"output": "-o"}, "--"


def origin_of(spec: ModelSpec, source: Source, made_with: Mapping[str, str], command: Sequence[str]) -> Origin:
    """Returns the origin of a deployment that ends now."""
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Origin(spec, source, made_with, tuple(command), created)


def versions(libraries: Iterable[str] = _LIBRARIES) -> dict[str, str]:
    """Returns the versions of those libraries that are installed, by name."""
    found = {}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def made_here() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that figures depend on, by name."""
    return {"python": platform.python_version(), **versions()}


def layer_costs(model: ExportedModel, shape: tuple[int, int]) -> tuple[LayerCost, ...]:
    """Returns the layers of a model, with their cost for an image of [height, width]."""
    from fcn_deploy.graph.layers import list_layers

    layers = list_layers(model.copy(), ImageShape(1, *shape))
    return tuple(LayerCost(each.name, each.op, each.output, each.parameters, each.macs) for each in layers)


def command_line(
    name: str, function: Callable[..., Any], given: Mapping[str, Any], positional: Sequence[str] = ()
) -> tuple[str, ...]:
    """Returns the words of the command line that does what a call of a public function did.

    Args:
        name: Of the command.
        function: Has a parameter for each option.
        given: Its arguments, by parameter.
        positional: The parameters that are arguments of the command, and not options.
    """
    words = ["fcn-deploy", name]
    for parameter in inspect.signature(function).parameters.values():
        value = given[parameter.name]
        if parameter.name in positional:
            words.append(_word(value))
        elif parameter.name not in _NOT_REPEATED and not _is_default(value, parameter.default):
            words += _option(parameter.name, value)
    return tuple(words)


def _is_default(value: object, default: object) -> bool:
    return value is None or value == default


def _option(name: str, value: Any) -> list[str]:
    dashed = name.replace("_", "-")
    flag = _SHORT.get(name, f"{_LONG}{dashed}")
    if value is True:
        return [flag]
    if value is False:
        return [f"{_LONG}no-{dashed}"]
    if name in _REPEATED or name in _SHAPES:
        several = [value] if isinstance(value, str | ImageShape) else value
        return [word for each in several for word in (flag, str(each))]
    if name in _SIZES and not isinstance(value, str):
        return [flag, "x".join(map(str, value))]
    if name in _JOINED and not isinstance(value, int | float):
        return [flag, ",".join(map(str, value))]
    return [flag, _word(value)]


def _word(value: Any) -> str:
    if isinstance(value, Mapping):  # of labels
        return ",".join(f"{left}={'ignore' if right is None else right}" for left, right in value.items())
    if isinstance(value, ImageFolder):
        value = value.root or value.paths[0].parent
    if isinstance(value, str | os.PathLike):
        return _without_home(Path(value)) if Path(value).is_absolute() else _without_others(os.fspath(value))
    return str(value)


def _without_home(path: Path) -> str:
    """Returns a path as seen from the current folder; of one that is not in it the last part alone."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):
        return path.name


def _without_others(text: str) -> str:
    """Returns a relative path, or the last part alone of one that leads out of the current folder by names."""
    folders = Path(os.path.normpath(text)).parts[:-1]
    return Path(text).name if folders[:1] == ("..",) and set(folders) != {".."} else text
