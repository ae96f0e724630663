"""An engine and its sidecar: made by a builder, saved, and loaded again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.plan import Plan
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import EngineFile, Io, Sidecar, Source, load_sidecar, sidecar_path
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.files import as_path, check_writable, read_bytes, sha256_bytes, write_bytes, write_json

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel  # needs onnx, which a device that loads an engine does not have


@dataclass(frozen=True, eq=False, repr=False)
class Engine:
    """An engine in memory.

    Attributes:
        data: The content of its file.
        sidecar: What it is; `save` fills in its `engine.file`.
        twin: The FP16 engine that was built beside it; None if none was asked for.
    """

    data: bytes
    sidecar: Sidecar
    twin: Engine | None = None

    def __repr__(self) -> str:
        sidecar = self.sidecar
        size = f"{len(self.data) / 1e6:.1f} MB"
        return f"Engine({sidecar.precision.requested} for {sidecar.backend}, io {sidecar.io}, {size})"

    def save(self, path: str | os.PathLike[str], gate: Gate | None = None) -> Sidecar:
        """Writes the engine and its sidecar, each atomically.

        The sidecar comes last: a file without its sidecar is not run.

        Args:
            path: The engine's file.
            gate: The gate that it met; None keeps what the sidecar says.

        Returns:
            The sidecar as it was written.

        Raises:
            InputError: The path cannot be written.
        """
        path = as_path(path)
        file = EngineFile(path.name, sha256_bytes(self.data), len(self.data))
        sidecar = replace(self.sidecar, engine=file, gate=gate or self.sidecar.gate)
        check_writable(sidecar_path(path))
        write_bytes(path, self.data)
        write_json(sidecar_path(path), sidecar.to_json())
        return sidecar


def load_engine(path: str | os.PathLike[str]) -> Engine:
    """Reads an engine and its sidecar.

    Args:
        path: The engine's file.

    Raises:
        ArtifactError: The sidecar is missing, malformed, of an unknown format, or describes another file.
        InputError: The engine's file cannot be read.
    """
    path = as_path(path)
    data = read_bytes(path)
    return Engine(data, load_sidecar(path))


@dataclass(frozen=True)
class BuildRecord:
    """What a builder says about the engine it has built; see `Sidecar` for each.

    Attributes:
        backend: Name of the backend that runs it.
        library: Version of the library that built it.
        precision: Asked and achieved.
        target: Where it may run.
        profiles: Min, opt and max shapes; empty if any size runs.
        winograd: Names of the layers that Winograd's algorithm multiplies.
        plan: The layers of a TensorRT plan; None if nothing told of them.
    """

    backend: str
    library: str
    precision: Precision
    target: Mapping[str, Any]
    profiles: tuple[Mapping[str, Any], ...] = ()
    winograd: tuple[str, ...] = ()
    plan: Plan | None = None


def make_engine(data: bytes, model: ExportedModel, ranges: Ranges | None, io: Io, record: BuildRecord) -> Engine:
    """Makes an engine of what a builder built.

    Args:
        data: The content of the engine's file.
        model: What it was built from.
        ranges: What it was built with, or None.
        io: `image` or `tensor`.
        record: What the builder says.
    """
    return engine_from(data, model.spec, source_of(model, ranges), io, record)


def source_of(model: ExportedModel, ranges: Ranges | None) -> Source:
    """Returns what an engine is built from, as its sidecar states it."""
    if ranges is None:
        return Source(model.sha256)
    return Source(model.sha256, ranges.sha256, asdict(ranges.data))


def engine_from(data: bytes, spec: ModelSpec, source: Source, io: Io, record: BuildRecord) -> Engine:
    """Makes an engine on a machine that does not have the model it is built from.

    Args:
        data: The content of the engine's file.
        spec: The net's.
        source: What it was built from.
        io: `image` or `tensor`.
        record: What the builder says.
    """
    sidecar = Sidecar(
        engine=EngineFile("", sha256_bytes(data), len(data)),
        backend=record.backend,
        library=record.library,
        io=io,
        precision=record.precision,
        spec=spec,
        source=source,
        target=record.target,
        profiles=record.profiles,
        winograd=record.winograd,
        plan=record.plan,
    )
    return Engine(data, sidecar)
