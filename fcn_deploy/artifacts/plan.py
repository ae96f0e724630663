"""The layers of a built plan, as its library tells of them: kernels, and the types and formats of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fcn_deploy.artifacts.json import require, strings
from fcn_deploy.errors import InputError

# Bytes of an element, by type. A type that is not here has no known size.
BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "fp8": 1,
    "fp16": 2,
    "bf16": 2,
    "fp32": 4,
    "tf32": 4,
    "int32": 4,
    "int64": 8,
}

SOURCES = ("log", "inspector")


@dataclass(frozen=True)
class PlanTensor:
    """A tensor that layers of a plan write and read.

    Attributes:
        type: Such as `int8`, `fp16` or `fp32`; `unknown` if the library's word for it is not known.
        shape: Its sizes; -1 for one that differs from image to image.
        format: How it is laid out in memory, in the library's words, such as `NHWC`.
    """

    type: str
    shape: tuple[int, ...]
    format: str = ""

    def __post_init__(self) -> None:
        require(isinstance(self.type, str) and " " not in self.type, "sidecar plan type", self.type, "one word")
        sizes = isinstance(self.shape, tuple) and all(type(size) is int and size >= -1 for size in self.shape)
        require(sizes, "sidecar plan shape", self.shape, "sizes, -1 for one that is not fixed")
        require(isinstance(self.format, str), "sidecar plan format", self.format, "words")

    def __str__(self) -> str:
        """Returns it as `parse` reads it: type, sizes and format in one line, `int8 -1x64x-1x-1 NHWC`."""
        return f"{self.type} {'x'.join(map(str, self.shape)) or 'scalar'} {self.format}".rstrip()

    @classmethod
    def parse(cls, text: object) -> PlanTensor:
        """Reads what `str` wrote.

        Raises:
            InputError: It is not that.
        """
        words = text.split(" ", 2) if isinstance(text, str) else []
        try:
            sizes = () if words[1] == "scalar" else tuple(map(int, words[1].split("x")))
        except (IndexError, ValueError) as error:
            raise InputError("sidecar plan tensor", got=repr(text), expected="a type, sizes and a format") from error
        return cls(words[0], sizes, words[2] if len(words) > 2 else "")


@dataclass(frozen=True)
class PlanLayer:
    """A layer of a plan: one kernel.

    Attributes:
        name: The library's name of it.
        kind: The library's word for what it does, such as `correlation` or `CaskConvolution`.
        kernel: The kernel's name; empty if it is not told, or chosen when the plan is loaded.
        nodes: Names of the ONNX nodes that it computes, alone or with other layers.
        reads: Names of the tensors that it reads, without constants.
        writes: Names of the tensors that it writes.
    """

    name: str
    kind: str
    kernel: str = ""
    nodes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what in (self.name, self.kind, self.kernel):
            require(isinstance(what, str), "sidecar plan layer", what, "text")
        for names in (self.nodes, self.reads, self.writes):
            strings(names, "sidecar plan layer")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return {
            "name": self.name,
            "kind": self.kind,
            "kernel": self.kernel,
            "nodes": list(self.nodes),
            "reads": list(self.reads),
            "writes": list(self.writes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlanLayer:
        """Reads what `to_json` wrote."""
        lists = {key: strings(data.get(key, []), f"sidecar plan {key}") for key in ("nodes", "reads", "writes")}
        return cls(data["name"], data["kind"], data.get("kernel", ""), **lists)


@dataclass(frozen=True)
class Plan:
    """The layers of a plan, in the order in which they run, and their tensors.

    Attributes:
        source: Who told of it: the builder's `log`, or the `inspector` of the engine.
        layers: The layers; those of a second profile follow those of the first.
        tensors: What layers write and read, by name.
    """

    source: str
    layers: tuple[PlanLayer, ...]
    tensors: Mapping[str, PlanTensor]

    def __post_init__(self) -> None:
        require(self.source in SOURCES, "sidecar plan source", self.source, " or ".join(SOURCES))
        missing = {name for layer in self.layers for name in (*layer.reads, *layer.writes)} - set(self.tensors)
        require(not missing, "sidecar plan tensors", sorted(missing), "every tensor that a layer reads or writes")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data: a line for each tensor."""
        tensors = {name: str(tensor) for name, tensor in self.tensors.items()}
        return {"source": self.source, "layers": [layer.to_json() for layer in self.layers], "tensors": tensors}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        layers = tuple(map(PlanLayer.from_json, data["layers"]))
        tensors = {str(name): PlanTensor.parse(text) for name, text in data["tensors"].items()}
        return cls(data["source"], layers, tensors)
