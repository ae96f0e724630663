"""The table of an engine's layers in a builder's log: read from text alone, without a GPU.

With detailed profiling verbosity the log of TensorRT-RTX and of TensorRT 10 has one message that begins with `Layers:`
and has a line for each layer:

    Name: conv1, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [-1,4,-1,-1], Strides: [...], ...,
    Datatype: Half, Format: (NHWC) Channel major format }], Constants: [...], Outputs: [ {...}], TacticName: k,
    StreamId: 0, Metadata: [ONNX Layer: conv1][ONNX Layer: conv1/Relu]

TensorRT 10 has no `Constants`, one key `Format/Datatype` instead of two, and the layer's parameters after `Outputs`.
The keys are those of the engine inspector's JSON, and so is what this module returns. The text is not made to be read
by programs: names in it may hold any character. So every part must be found where it belongs, to the last character,
or the table counts as not understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fcn_deploy.errors import ArtifactError

_HEADER = "Layers:"
# What follows the layers, in the same message.
_END = re.compile(r"^(?:Bindings|I/O Tensors|Engine Metadata):", re.MULTILINE)

_LIST = r"\[(?P<{}>| \{{ .*? \}})\]"
_LAYER = re.compile(
    rf"Name: (?P<Name>.*?), LayerType: (?P<LayerType>[^,]*), Inputs: {_LIST.format('Inputs')}, "
    rf"(?:Constants: {_LIST.format('Constants')}, )?Outputs: {_LIST.format('Outputs')}(?P<rest>(?:, .*)?)"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<Name>.*?), (?:Location: (?P<Location>[^,]*), )?Dimensions: \[(?P<Dimensions>[-\d, ]*)\], "
    r"(?P<rest>[^{}]*?) \}(?:, |$)"
)
_KINDS_OF_TYPE = re.compile(r"(?:^|, )(Datatype|DataType|Format/Datatype|Format): (.*?)(?=, [A-Z][A-Za-z/]*: |$)")
_KERNEL = re.compile(r", TacticName: (.*?)(?=, (?:TacticValue|StreamId|Metadata): |$)")
_PARAMETER = re.compile(r", (ParameterType|Origin): ([A-Za-z]*)")
_WEIGHTS = re.compile(r", Weights: (\{[^{}]*\})")
_METADATA = re.compile(r", Metadata: (.*)$")


class LayerTableLog:
    """Listens to a builder's log and keeps the layer tables in it.

    Attributes:
        text: The last table that was heard; None if there was none.
    """

    def __init__(self) -> None:
        self.text: str | None = None

    def hear(self, message: str) -> None:
        """Takes a message of the log."""
        if message.startswith(_HEADER):
            self.text = message


def read_layer_table(text: str) -> list[dict[str, Any]]:
    """Reads the layer table of a builder's log.

    Args:
        text: The message, from `Layers:` on.

    Returns:
        The layers, with the keys of the inspector's JSON: `Name`, `LayerType`, `Inputs` and `Outputs` (each with
        `Name`, `Dimensions`, and type and format), and `Constants`, `TacticName`, `ParameterType`, `Origin`, `Weights`
        and `Metadata` as far as they are told.

    Raises:
        ArtifactError: It is not such a table, or a part of it is not understood.
    """
    if not text.startswith(_HEADER):
        raise _not_understood(text)
    body = text[len(_HEADER) :]
    end = _END.search(body)
    if end is None:  # cut off, and nobody knows how many layers are missing
        raise _not_understood(body[-60:])
    lines = [line for line in body[: end.start()].split("\n") if line.strip()]
    if not lines:
        raise _not_understood(text)
    return [_layer(line) for line in lines]


def _layer(line: str) -> dict[str, Any]:
    match = _LAYER.fullmatch(line.rstrip())
    if match is None:
        raise _not_understood(line)
    layer: dict[str, Any] = {"Name": match["Name"], "LayerType": match["LayerType"]}
    for key in ("Inputs", "Constants", "Outputs"):
        if match[key] is not None:
            layer[key] = _tensors(match[key].strip())
    rest = match["rest"]
    layer |= dict(_PARAMETER.findall(rest))
    for key, pattern in (("TacticName", _KERNEL), ("Metadata", _METADATA)):
        found = pattern.search(rest)
        layer |= {key: found[1]} if found else {}
    weights = _WEIGHTS.search(rest)
    return layer | ({"Weights": _weights(weights[1])} if weights else {})


def _tensors(text: str) -> list[dict[str, Any]]:
    tensors, position = [], 0
    while position < len(text):
        match = _TENSOR.match(text, position)
        types = dict(_KINDS_OF_TYPE.findall(match["rest"])) if match else {}
        if match is None or not types:
            raise _not_understood(text[position:])
        sizes = [int(size) for size in match["Dimensions"].split(",") if size.strip()]
        tensors.append({"Name": match["Name"], "Dimensions": sizes, **types})
        position = match.end()
    return tensors


def _weights(text: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(text)
    except ValueError as error:
        raise _not_understood(text) from error
    return found


def _not_understood(text: str) -> ArtifactError:
    return ArtifactError("the layer table in the log is not understood", got=repr(text.strip()[:60]))
