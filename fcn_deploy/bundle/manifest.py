"""`bundle.json`: what a bundle holds, what it was made from, and what its engines must keep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.json import FORMAT, check_format, integer, known_fields, number, require, strings
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import Io, Source, checked_io, checked_profile
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import EngineSummary
from fcn_deploy.errors import FcnDeployError, InputError
from fcn_deploy.evaluation.gates import Criterion
from fcn_deploy.text import printable

MANIFEST = "bundle.json"
# The hash of bundle.json, as sha256sum writes it: the manifest cannot hold its own.
MANIFEST_HASH = "bundle.json.sha256"
EXPECTED = "expected.npz"
RANGES = "ranges.json"
# The precisions that a bundle may hold, in the order in which they are built: each keeps fewer labels than the one
# before.
PRECISIONS = ("fp16", "int8")

# Of a batch, a height or a width; CUDA counts with 31 bits.
_LARGEST_SIZE = 2**31 - 1
_NAME = re.compile(r"[^/\\\0.][^/\\\0]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def graph_file(precision: str) -> str:
    """Returns the name of the typed graph of a precision."""
    return f"{precision}.onnx"


@dataclass(frozen=True)
class FileEntry:
    """A file of a bundle.

    Attributes:
        bytes: Its size.
        sha256: Of its content, in hex.
    """

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        require(integer(self.bytes, "size of a file") >= 0, "size of a file", self.bytes, "0 or more")
        fits = isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256) is not None
        require(fits, "hash of a file", self.sha256, "64 hexadecimal digits")


@dataclass(frozen=True)
class BundledGraph:
    """A typed graph, from which the device builds an engine of one precision.

    Attributes:
        precision: What the graph asks for.
        criteria: What the engine must keep, as texts such as `agreement>=98%`; empty for the default gate of its
            precision.
        simulated: What `deploy` measured of a simulation of the engine.
    """

    precision: Precision
    criteria: tuple[str, ...]
    simulated: EngineSummary

    def __post_init__(self) -> None:
        for text in self.criteria:
            Criterion.parse(text)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return {
            "file": graph_file(self.precision.requested),
            "precision": self.precision.to_json(),
            "criteria": list(self.criteria),
            "simulated": self.simulated.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BundledGraph:
        """Reads what `to_json` wrote.

        Raises:
            FcnDeployError: A value is bad.
            KeyError: A key is missing.
        """
        precision = Precision.from_json(data["precision"])
        file = graph_file(precision.requested)
        require(data["file"] == file, "file of a graph", data["file"], file)
        simulated = EngineSummary.from_json(data["simulated"])
        return cls(precision, strings(data["criteria"], "criteria of a graph"), simulated)


@dataclass(frozen=True)
class Bundle:
    """Everything `bundle.json` says; see docs/artifacts.md for each key.

    Attributes:
        backend: The library that it was made for, `tensorrt` or `tensorrt-rtx`.
        model: Name of the exported model's file.
        export_error: Largest relative error of the exported model against PyTorch.
        io: `image` (uint8 images to labels) or `tensor` (float image to logits).
        spec: The net.
        source: What it was made from.
        profiles: Min, opt and max shapes of the engines.
        graphs: By precision, in the order of `PRECISIONS`.
        images: Number of images with expected results.
        ignore_index: The value of ground truth that does not count; None if every value counts.
        calibration: Numbers of images: `observed` for the ranges, `judged` for the gates of the simulations.
        made_with: Versions of the libraries that made it.
        files: Size and hash of every other file of the folder, by name.
        version: Of fcn-deploy, which made it.
    """

    backend: str
    model: str
    export_error: float
    io: Io
    spec: ModelSpec
    source: Source
    profiles: tuple[Mapping[str, Any], ...]
    graphs: Mapping[str, BundledGraph]
    images: int
    ignore_index: int | None
    calibration: Mapping[str, int]
    made_with: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    version: str = field(default=__version__, kw_only=True)

    def __post_init__(self) -> None:
        backends = ("tensorrt", "tensorrt-rtx")
        require(self.backend in backends, "backend of a bundle", self.backend, " or ".join(backends))
        # Engines are called by it, so it must not lead out of their folder.
        require(_NAME.fullmatch(self.spec.variant) is not None, "variant of a bundle", self.spec.variant, "a file name")
        require(bool(self.graphs), "graphs of a bundle", self.graphs, "one or two")
        require(bool(self.profiles), "profiles of a bundle", self.profiles, "one or more")
        for profile in self.profiles:
            ranges = list(zip(*(profile[key] for key in ("min", "opt", "max")), strict=True))
            fits = all(low <= best <= high <= _LARGEST_SIZE for low, best, high in ranges)
            require(fits, "profile of a bundle", dict(profile), f"min <= opt <= max <= {_LARGEST_SIZE} on every axis")
        require(self.images >= 1, "images of a bundle", self.images, "one or more")
        for name, graph in self.graphs.items():
            known = name in PRECISIONS and graph.precision.requested == name
            require(known, "graph of a bundle", name, f"one of {', '.join(PRECISIONS)}, and its own precision")

    def __repr__(self) -> str:
        graphs = " and ".join(self.graphs)
        return printable(f"Bundle({self.spec.variant}, {graphs} for {self.backend}, {self.images} images)")

    @property
    def names(self) -> set[str]:
        """The names of the files that it must have beside `bundle.json` and the hash of that."""
        return {*map(graph_file, self.graphs), EXPECTED, RANGES}

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data, with its format number."""
        return {
            "format": FORMAT,
            "fcn_deploy": self.version,
            "backend": self.backend,
            "model": self.model,
            "export_error": self.export_error,
            "io": self.io,
            "profiles": [dict(profile) for profile in self.profiles],
            "graphs": {name: graph.to_json() for name, graph in self.graphs.items()},
            "images": self.images,
            "ignore_index": self.ignore_index,
            "calibration": dict(self.calibration),
            "source": asdict(self.source),
            "spec": self.spec.to_json(),
            "made_with": dict(self.made_with),
            "files": {name: asdict(entry) for name, entry in self.files.items()},
        }

    @classmethod
    def from_json(cls, data: object) -> Bundle:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: It requires something that this version does not know.
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, MANIFEST)
        try:
            ignored = fields["ignore_index"]
            graphs = {str(name): BundledGraph.from_json(graph) for name, graph in fields["graphs"].items()}
            return cls(
                backend=str(fields["backend"]),
                model=str(fields["model"]),
                export_error=number(fields["export_error"], "export_error"),
                io=checked_io(fields["io"]),
                spec=ModelSpec.from_json(fields["spec"]),
                source=Source(**known_fields(Source, fields["source"])),
                profiles=tuple(checked_profile(profile) for profile in fields["profiles"]),
                graphs={name: graphs[name] for name in sorted(graphs, key=_order)},
                images=integer(fields["images"], "images"),
                ignore_index=None if ignored is None else integer(ignored, "ignore_index"),
                calibration={str(key): integer(count, key) for key, count in fields["calibration"].items()},
                made_with={str(key): str(version) for key, version in fields["made_with"].items()},
                files={
                    str(name): FileEntry(**known_fields(FileEntry, entry)) for name, entry in fields["files"].items()
                },
                version=str(fields["fcn_deploy"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError, FcnDeployError) as error:
            if isinstance(error, FcnDeployError):
                raise
            raise InputError(f"{MANIFEST} is malformed", got=f"{type(error).__name__}: {error}") from error


def _order(precision: str) -> int:
    return PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)
