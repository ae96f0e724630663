"""What an engine inspector's JSON says of convolutions: read from text alone, without a library or a GPU.

TensorRT 10 describes a tensor by one key, `Format/Datatype`; 11 splits it into `Format` and `DataType`. Which it is the
keys themselves tell. An engine layer stands for the ONNX nodes that its `Metadata` lists; where it has none, for those
that its name is put together from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fcn_deploy.errors import ArtifactError

# From narrow to wide: of two types that meet in a layer, it computes in the wider one.
_WIDTHS = ("int8", "fp8", "fp16", "bf16", "tf32", "fp32")

# How the inspector calls them: a type by itself, or a word in a sentence such as "Row major linear FP16 format".
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
_PROFILE = re.compile(r" \[profile \d+\]$")  # ends the names of a second profile's layers
_JOINTS = re.compile(r" (?:\+|\|\|) ")  # nodes that follow each other, nodes side by side

# Kernels are named by the types they read and write, and then by those they multiply and add up in: i8i8_i8i32_f32.
_KIND = r"(?:i8|u8|i32|f16|bf16|f32|tf32)"
_KERNEL = re.compile(rf"_{_KIND}{_KIND}_(i8|f16|bf16|f32|tf32){_KIND}(?:_|$)")

# Layers that carry the name of a convolution and only move its data.
_MOVERS = ("reformat", "noop", "shuffle", "constant", "signal", "wait", "shape", "copy")
_CONVOLVERS = ("conv", "correlation", "gemm")


def layer_precisions(text: str, layers: Collection[str]) -> dict[str, str | None]:
    """Reads what convolutions run in.

    Args:
        text: What `get_engine_information` gave as JSON, of an engine built with detailed profiling verbosity.
        layers: Names of the ONNX nodes.

    Returns:
        For each of them, in their order, what it runs in, such as `int8`: the widest, where several engine layers
        stand for it. None where no engine layer is found for it, or those found do not say.

    Raises:
        ArtifactError: The text is not what an inspector gives.
    """
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in layers}
    for layer in _layers(text):
        for name in _nodes(layer) & found.keys():
            found[name].append(layer)
    return {name: _precision(candidates) for name, candidates in found.items()}


def _layers(text: str) -> list[Mapping[str, Any]]:
    try:
        # Not strict: the separators within Metadata are control characters, which not every version escapes.
        content = json.loads(text, strict=False)
        layers = content["Layers"]
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            "the engine inspector's answer cannot be read",
            got=f"{type(error).__name__}: {error}",
            expected="JSON with a list of Layers",
        ) from error
    # An engine without detailed verbosity lists names alone, which say nothing of precision.
    return [layer for layer in layers if isinstance(layer, Mapping)]


def _nodes(layer: Mapping[str, Any]) -> set[str]:
    """The ONNX nodes that an engine layer stands for."""
    listed = _METADATA_NODE.findall(str(layer.get("Metadata") or ""))
    if listed:
        return set(listed)
    return set(_JOINTS.split(_PROFILE.sub("", str(layer.get("Name") or ""))))


def _precision(candidates: Iterable[Mapping[str, Any]]) -> str | None:
    computing = [layer for layer in candidates if not _is(layer, _MOVERS)]
    convolving = [layer for layer in computing if _is(layer, _CONVOLVERS) or _kernel(layer)]
    if convolving:
        return _widest(_of_convolution(layer) for layer in convolving)
    # Fused into a generated kernel: what that reads and writes is all there is to go by.
    return _alike(_of_fusion(layer) for layer in computing)


def _is(layer: Mapping[str, Any], kinds: Iterable[str]) -> bool:
    said = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    return any(kind in said for kind in kinds)


def _of_convolution(layer: Mapping[str, Any]) -> str | None:
    kernel = _kernel(layer)
    if kernel:
        return kernel
    inputs, weights = layer.get("Inputs") or [], layer.get("Weights")
    if isinstance(weights, Mapping) and weights.get("Type"):
        # The image of features comes first; what follows is added to the result.
        return _widest([*map(_type, inputs[:1]), _known(str(weights["Type"]))])
    # Weights that are not listed apart may be among the inputs, and so may scales and biases.
    return _alike(map(_type, inputs))


def _of_fusion(layer: Mapping[str, Any]) -> str | None:
    return _alike(_type(tensor) for key in ("Inputs", "Outputs") for tensor in layer.get(key) or [])


def _kernel(layer: Mapping[str, Any]) -> str | None:
    """What the kernel's name says that it multiplies in."""
    match = _KERNEL.search(str(layer.get("TacticName") or ""))
    return _TYPES[match[1]] if match else None


def _type(tensor: Mapping[str, Any]) -> str | None:
    """The type of one of a layer's tensors."""
    keys = {str(key).lower(): str(value) for key, value in tensor.items()}
    return next((_known(keys[key]) for key in ("datatype", "format/datatype", "format") if key in keys), None)


def _known(text: str) -> str | None:
    return next((_TYPES[word] for word in re.findall(r"[a-z]+\d*", text.lower()) if word in _TYPES), None)


def _widest(types: Iterable[str | None]) -> str | None:
    """The widest of some types; None if there is none, or one of them is not known."""
    found = list(types)
    known = [each for each in found if each is not None]
    return max(known, key=_WIDTHS.index) if known and len(known) == len(found) else None


def _alike(types: Iterable[str | None]) -> str | None:
    """The one type that all are of; None if they are not."""
    found = set(types)
    return found.pop() if len(found) == 1 else None
