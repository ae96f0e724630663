"""A plan's layers as plain values, from what an inspector's JSON or a builder's log says of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fcn_deploy.artifacts.plan import Plan, PlanLayer, PlanTensor
from fcn_deploy.engines.tensorrt.inspector import nodes_of, type_of
from fcn_deploy.errors import ArtifactError

# The library's words for types that nothing computes in; `type_of` knows the others.
_INTEGERS = {"uint8": "uint8", "int32": "int32", "int64": "int64", "bool": "bool"}
_SHORT_FORMAT = re.compile(r"^\(([A-Za-z0-9_]+)\)|\((k[A-Za-z0-9_]+)\)$")
# Stands for a kernel that TensorRT-RTX chooses when it loads a plan.
_CHOSEN_AT_LOAD = "__myelin_CASK_STUB"


def read_plan(layers: Iterable[Mapping[str, Any]], source: Literal["log", "inspector"]) -> Plan:
    """Reads the layers of a plan.

    Args:
        layers: With the keys of the inspector's JSON, from `inspected_layers` or `read_layer_table`.
        source: Which of them.

    Raises:
        ArtifactError: A layer lacks its name, or a tensor its name or shape.
    """
    tensors: dict[str, PlanTensor] = {}
    try:
        read = tuple(_layer(layer, tensors) for layer in layers)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            "the layers of the plan are not understood", got=f"{type(error).__name__}: {error}"
        ) from error
    return Plan(source, read, tensors)


def _layer(layer: Mapping[str, Any], tensors: dict[str, PlanTensor]) -> PlanLayer:
    names: dict[str, tuple[str, ...]] = {}
    for key in ("Inputs", "Outputs"):
        names[key] = tuple(_named(str(each["Name"]), _tensor(each), tensors) for each in layer.get(key) or ())
    kind, kernel = str(layer["LayerType"]), str(layer.get("TacticName") or "")
    if layer.get("Origin") == "QDQ":  # a Q or DQ of its own, which TensorRT calls a reformat too
        kind = "Quantize"
    kernel = "" if kernel == _CHOSEN_AT_LOAD else kernel
    return PlanLayer(str(layer["Name"]), kind, kernel, tuple(nodes_of(layer)), names["Inputs"], names["Outputs"])


def _named(name: str, tensor: PlanTensor, tensors: dict[str, PlanTensor]) -> str:
    """Adds a tensor; the image and the labels have one name in all profiles, and other sizes in each."""
    while tensors.setdefault(name, tensor) != tensor:
        name += "'"
    return name


def _tensor(tensor: Mapping[str, Any]) -> PlanTensor:
    keys = {str(key).lower(): str(value) for key, value in tensor.items()}
    words = keys.get("datatype") or keys.get("format/datatype") or keys.get("format") or ""
    kind = _INTEGERS.get(words.lower()) or type_of(tensor) or "unknown"
    layout = keys.get("format") or keys.get("format/datatype") or ""
    short = _SHORT_FORMAT.search(layout)
    shape = tuple(int(size) for size in tensor["Dimensions"])
    return PlanTensor(kind, shape, next(filter(None, short.groups())) if short else layout)
