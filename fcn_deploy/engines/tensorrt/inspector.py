"""What a library says about the layers of a plan, and which precision that means: read without a library or a GPU.

The inspector of an engine gives JSON; the builder's log has the same keys (see `layer_table`). TensorRT 10 describes a
tensor by one key, `Format/Datatype`; 11 splits it into `Format` and `DataType`. The keys tell which version it is. An
engine layer stands for the ONNX nodes that its `Metadata` lists; without metadata, for the nodes that its name is made
of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fcn_deploy.errors import ArtifactError

# From narrow to wide: a layer that reads two types computes in the wider one.
_WIDTHS = ("int8", "fp8", "fp16", "bf16", "tf32", "fp32")

# The inspector's names for them: alone, or as a word in a sentence such as "Row major linear FP16 format".
_TYPES = {
    "int8": "int8",
    "i8": "int8",
    "fp8": "fp8",
    "half": "fp16",
    "fp16": "fp16",
    "f16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "tf32": "tf32",
    "float": "fp32",
    "fp32": "fp32",
    "f32": "fp32",
}

_METADATA_NODE = re.compile(r"\[ONNX Layer: ([^\]\x1e\x1f]+)\]")
_PROFILE = re.compile(r" \[profile \d+\]$")  # ends the names of the layers of a second profile
_JOINTS = re.compile(r" (?:\+|\|\|) ")  # nodes that follow each other, nodes side by side

# Names of kernels hold the types they read and write, then the types they multiply and add up in: i8i8_i8i32_f32.
_KIND = r"(?:i8|u8|i32|f16|bf16|f32|tf32)"
_KERNEL = re.compile(rf"_{_KIND}{_KIND}_(i8|f16|bf16|f32|tf32){_KIND}(?:_|$)")

# Layers that have the name of a convolution but only move its data.
_MOVERS = ("reformat", "noop", "shuffle", "constant", "signal", "wait", "shape", "copy")
_CONVOLVERS = ("conv", "correlation", "gemm")


def inspected_layers(text: str) -> list[Mapping[str, Any]]:
    """Reads the layers of an engine from its inspector's answer.

    Args:
        text: JSON from `get_engine_information`, of an engine built with detailed profiling verbosity.

    Raises:
        ArtifactError: The text is not what an inspector gives.
    """
    try:
        # Not strict: Metadata holds control characters as separators, which not every version escapes.
        content = json.loads(text, strict=False)
        layers = content["Layers"]
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            "the engine inspector's answer cannot be read",
            got=f"{type(error).__name__}: {error}",
            expected="JSON with a list of Layers",
        ) from error
    # An engine without detailed verbosity lists names alone, which say nothing about precision.
    return [layer for layer in layers if isinstance(layer, Mapping)]


def layer_precisions(layers: Iterable[Mapping[str, Any]], names: Collection[str]) -> dict[str, str | None]:
    """Finds what convolutions run in.

    Args:
        layers: Of the plan, from `inspected_layers` or `read_layer_table`.
        names: Of the ONNX nodes.

    Returns:
        What each of them runs in, such as `int8`, in their order. If several engine layers stand for a node, it is the
        widest. It is None if no engine layer is found for a node, or those found do not tell.
    """
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    for layer in layers:
        for name in found.keys() & set(nodes_of(layer)):
            found[name].append(layer)
    return {name: _precision(candidates) for name, candidates in found.items()}


def nodes_of(layer: Mapping[str, Any]) -> list[str]:
    """Returns the names of the ONNX nodes that an engine layer stands for, each once, in its order."""
    listed = _METADATA_NODE.findall(str(layer.get("Metadata") or ""))
    if not listed:
        listed = _JOINTS.split(_PROFILE.sub("", str(layer.get("Name") or "")))
    return list(dict.fromkeys(listed))


def _precision(candidates: Iterable[Mapping[str, Any]]) -> str | None:
    computing = [layer for layer in candidates if not _is(layer, _MOVERS)]
    convolving = [layer for layer in computing if _is(layer, _CONVOLVERS) or _kernel(layer)]
    if convolving:
        return _widest(_of_convolution(layer) for layer in convolving)
    # Fused into a generated kernel: only the types that it reads and writes are known.
    return _common(_of_fusion(layer) for layer in computing)


def _is(layer: Mapping[str, Any], kinds: Iterable[str]) -> bool:
    said = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    return any(kind in said for kind in kinds)


def _of_convolution(layer: Mapping[str, Any]) -> str | None:
    kernel = _kernel(layer)
    if kernel:
        return kernel
    inputs, weights = layer.get("Inputs") or [], layer.get("Weights")
    if "Constants" in layer:
        # Weights and scales are apart from the inputs, and a kernel that does not dequantise has weights of its type.
        return next(map(type_of, inputs), None)
    if isinstance(weights, Mapping) and weights.get("Type"):
        # The first input is the feature map; the others are added to the result.
        return _widest([*map(type_of, inputs[:1]), _known(str(weights["Type"]))])
    # Weights that are not listed separately may be among the inputs, and so may scales and biases.
    return _common(map(type_of, inputs))


def _of_fusion(layer: Mapping[str, Any]) -> str | None:
    return _common(type_of(tensor) for key in ("Inputs", "Outputs") for tensor in layer.get(key) or [])


def _kernel(layer: Mapping[str, Any]) -> str | None:
    """The type that the kernel multiplies in, by its name."""
    match = _KERNEL.search(str(layer.get("TacticName") or ""))
    return _TYPES[match[1]] if match else None


def type_of(tensor: Mapping[str, Any]) -> str | None:
    """Returns the type of one of a layer's tensors, such as `fp16`; None if it is no type that layers compute in."""
    keys = {str(key).lower(): str(value) for key, value in tensor.items()}
    return next((_known(keys[key]) for key in ("datatype", "format/datatype", "format") if key in keys), None)


def _known(text: str) -> str | None:
    return next((_TYPES[word] for word in re.findall(r"[a-z]+\d*", text.lower()) if word in _TYPES), None)


def _widest(types: Iterable[str | None]) -> str | None:
    """The widest of some types; None if there are none, or one of them is not known."""
    found = list(types)
    known = [each for each in found if each is not None]
    return max(known, key=_WIDTHS.index) if known and len(known) == len(found) else None


def _common(types: Iterable[str | None]) -> str | None:
    """The one type that all of them have; None if they differ."""
    found = set(types)
    return found.pop() if len(found) == 1 else None
