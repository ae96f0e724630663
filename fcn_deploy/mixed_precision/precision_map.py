"""Precision maps: which layers an engine runs in INT8, read from its sidecar or from a JSON file of the same form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, read_json

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel

_PRECISIONS = ("int8", "fp16", "bf16", "fp32")


def read_precision_map(path: str | os.PathLike[str], model: ExportedModel) -> tuple[str, ...]:
    """Returns the layers that a precision map runs in INT8.

    Args:
        path: A sidecar, whose `precision.layers` is the map; or a JSON file whose `layers` holds `int8`, `fp16`,
            `bf16` or `fp32` by the name of the layer. All but `int8` mean float, in the base of the engine.
        model: The model that it is for.

    Returns:
        Names in graph order.

    Raises:
        InputError: It cannot be read, or its layers are not those of the model.
    """
    from fcn_deploy.quantization.selection import quantizable_layers  # a map is read before onnx is imported

    layers = layers_of_map(path)
    known = quantizable_layers(model.graph, transposed=True)
    nodes = {node.name for node in model.graph}
    missing = [name for name in known if name not in layers]
    strange = [name for name in layers if name not in nodes]
    fixed = [name for name, precision in layers.items() if precision == "int8" and name not in known]
    for what, names in (
        ("lacks layers", missing),
        ("names layers that the model does not have", strange),
        ("asks for INT8 in layers that cannot be quantised", fixed),
    ):
        if names:
            raise InputError(f"{path} {what}", got=", ".join(names), fix="take the map of an engine of this net")
    return tuple(name for name in known if layers[name] == "int8")


def layers_of_map(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Returns the precisions of a precision map, by the names of layers, whose model is not known yet.

    Raises:
        InputError: It cannot be read, is no precision map, or has another precision than those of a map.
    """
    data = read_json(as_path(path))
    inner = data.get("precision", data) if isinstance(data, Mapping) else None
    layers = inner.get("layers") if isinstance(inner, Mapping) else None
    if not isinstance(layers, Mapping) or not layers:
        raise InputError(f"{path} is not a precision map", expected="a sidecar, or JSON with the precisions of layers")
    unknown = sorted({str(precision) for precision in layers.values()} - set(_PRECISIONS))
    if unknown:
        raise InputError(f"unknown precisions in {path}", got=", ".join(unknown), expected=", ".join(_PRECISIONS))
    return layers
