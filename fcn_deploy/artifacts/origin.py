"""What a deployment was made from, and the command that repeats it, as its summary states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fcn_deploy.artifacts.json import integer, known_fields, require, strings
from fcn_deploy.artifacts.sidecar import Source
from fcn_deploy.artifacts.spec import ModelSpec


@dataclass(frozen=True)
class Origin:
    """What a deployment was made from.

    Attributes:
        spec: The net, with the hash of its weights.
        source: The exported model and the ranges, by their hashes.
        made_with: Versions of Python and of the libraries, by name.
        command: The words of the command line that repeats it; empty if it is not known. Paths in it are relative to
            the folder in which it ran, and of others only the last part is kept.
        created: When it ended, in UTC: `2026-11-28T06:04:19Z`; empty if it is not known.
    """

    spec: ModelSpec
    source: Source
    made_with: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    created: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return {
            "created": self.created,
            "command": list(self.command),
            "made_with": dict(self.made_with),
            "source": asdict(self.source),
            "spec": self.spec.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Origin:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: The spec requires something that this version does not know.
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        versions = data["made_with"]
        require(isinstance(versions, Mapping), "summary made_with", versions, "a version by library")
        strings(list(versions.values()), "summary made_with")
        require(isinstance(data["created"], str), "summary created", data["created"], "a time")
        spec = ModelSpec.from_json(data["spec"])
        if (checkpoint := spec.checkpoint) is not None:
            strings([checkpoint.sha256, checkpoint.layout], "summary checkpoint")
        return cls(
            spec=spec,
            source=_source(data["source"]),
            made_with=dict(versions),
            command=strings(data["command"], "summary command"),
            created=data["created"],
        )


def _source(data: Mapping[str, Any]) -> Source:
    source = Source(**known_fields(Source, data))
    require(isinstance(source.onnx_sha256, str), "summary onnx_sha256", source.onnx_sha256, "a hash")
    require(isinstance(source.ranges_sha256, str | None), "summary ranges_sha256", source.ranges_sha256, "a hash")
    observed = source.calibration
    require(isinstance(observed, Mapping | None), "summary calibration", observed, "what was observed, or null")
    return source


@dataclass(frozen=True)
class LayerCost:
    """A layer of the exported model.

    Attributes:
        name: Its name.
        op: `Conv`, `ConvTranspose`, `Gemm` or `MatMul`.
        output: Shape of its output, batch first; None if it is not known.
        parameters: Number of its weights and biases.
        macs: Number of its multiply-adds; None if it is not known.
    """

    name: str
    op: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int | None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerCost:
        """Reads it from JSON.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        name, op = strings([data["name"], data["op"]], "summary layer")
        output, macs = data["output"], data["macs"]
        require(isinstance(output, list | None), "summary layer output", output, "a list of sizes, or null")
        return cls(
            name,
            op,
            None if output is None else tuple(integer(size, "summary layer output") for size in output),
            integer(data["parameters"], "summary layer parameters"),
            None if macs is None else integer(macs, "summary layer macs"),
        )
