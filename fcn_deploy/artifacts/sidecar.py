"""The sidecar, a JSON file beside an engine: what the engine is, what it was made from, and where it may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.json import FORMAT, check_format, known_fields
from fcn_deploy.artifacts.plan import Plan
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.tuning import Tuning
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.files import is_file, read_json, real_path, sha256_file
from fcn_deploy.text import printable

Io = Literal["image", "tensor"]

# This key in the metadata_props of an ONNX engine holds its precision and target CPU (`int8-vnni`). An exported model,
# which runs without a sidecar, does not have the key.
ENGINE_KEY = "fcn_deploy.engine"

# An engine for OpenVINO has this key as well: what it computes in where it is not quantised, `fp32` or `bf16`.
OPENVINO_KEY = "fcn_deploy.openvino"

# A simulation computes on a CPU what an engine for another machine would give. The value of ENGINE_KEY ends in
# SIMULATED, and the `target` of its sidecar has the key SIMULATES.
SIMULATED = "-simulated"
SIMULATES = "simulates"

# The backends that an earlier version does not know: it would take an engine of theirs for one of ONNX Runtime. Their
# sidecars name them under `requires`.
_REQUIRED = ("openvino",)

# Keys that stand in a sidecar only if there is something to say.
_OPTIONAL = ("winograd", "tuning", "plan")


@dataclass(frozen=True)
class EngineFile:
    """The file a sidecar belongs to.

    Attributes:
        file: Its name, without a folder.
        sha256: Of its content, in hex.
        bytes: Its size.
    """

    file: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not isinstance(self.sha256, str) or not isinstance(self.bytes, int):
            raise InputError("sidecar engine", got=repr(self), expected="a name, a hash and a size")


@dataclass(frozen=True)
class Source:
    """What an engine was built from.

    Attributes:
        onnx_sha256: Of the exported ONNX file.
        ranges_sha256: Of the ranges file, or None.
        calibration: The ranges file's `data` object, or None.
    """

    onnx_sha256: str
    ranges_sha256: str | None = None
    calibration: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sidecar:
    """Everything `<engine>.json` says; see docs/artifacts.md for each key.

    Attributes:
        engine: The file it belongs to.
        backend: `onnxruntime`, `openvino`, `tensorrt` or `tensorrt-rtx`.
        library: Version of the library that built the engine.
        io: `image` (uint8 images to labels) or `tensor` (float image to logits).
        precision: What was asked for and what was achieved.
        spec: The net.
        source: What it was built from.
        target: Where it may run: `cpu`, and `gpu` architectures.
        profiles: Min, opt and max shapes; empty if the engine runs any size.
        gate: The gate it met before `deploy` shipped it; None for an engine that was only built.
        winograd: Names of the layers that an engine for ONNX Runtime computes by Winograd's algorithm.
        tuning: How these layers, the INT8 layers and the library were chosen by time; None if nothing was measured.
        plan: The layers of a TensorRT plan, as its builder's log or its inspector tells of them; None if neither did.
    """

    engine: EngineFile
    backend: str
    library: str
    io: Io
    precision: Precision
    spec: ModelSpec
    source: Source
    target: Mapping[str, Any]
    profiles: tuple[Mapping[str, Any], ...] = ()
    gate: Gate | None = None
    winograd: tuple[str, ...] = ()
    tuning: Tuning | None = None
    plan: Plan | None = None

    def __repr__(self) -> str:
        kind = f"{self.precision.requested} for {self.backend} {self.library}, io {self.io}"
        return printable(f"Sidecar({self.engine.file or 'not saved'}, {kind}, {self.spec.num_classes} classes)")

    def to_json(self) -> dict[str, Any]:
        """Returns the sidecar as JSON data, with its format number and without optional keys that say nothing."""
        fields = {
            **asdict(replace(self, plan=None)),
            "precision": self.precision.to_json(),
            "spec": self.spec.to_json(),
        }
        fields["plan"] = self.plan.to_json() if self.plan is not None else None  # last: it is long
        said = {key: value for key, value in fields.items() if value or key not in _OPTIONAL}
        requires = {"requires": [self.backend]} if self.backend in _REQUIRED else {}
        return {"format": FORMAT, **said, **requires}

    @classmethod
    def from_json(cls, data: object) -> Sidecar:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: It requires something that this version does not know.
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, "the sidecar", _REQUIRED)
        try:
            return cls(
                engine=EngineFile(**known_fields(EngineFile, fields["engine"])),
                backend=str(fields["backend"]),
                library=str(fields["library"]),
                io=checked_io(fields["io"]),
                precision=Precision.from_json(fields["precision"]),
                spec=ModelSpec.from_json(fields["spec"]),
                source=Source(**known_fields(Source, fields["source"])),
                target=_checked_target(fields["target"]),
                profiles=tuple(checked_profile(profile) for profile in fields["profiles"]),
                gate=Gate.from_json(fields["gate"]) if fields.get("gate") else None,
                winograd=_checked_names(fields.get("winograd", [])),
                tuning=Tuning.from_json(fields["tuning"]) if fields.get("tuning") else None,
                plan=Plan.from_json(fields["plan"]) if fields.get("plan") else None,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the sidecar is malformed", got=f"{type(error).__name__}: {error}") from error


def _checked_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError("sidecar winograd", got=repr(value), expected="a list of names of layers")
    return tuple(value)


def checked_io(value: object) -> Io:
    """Returns `image` or `tensor` if `value` is one of them, else raises InputError."""
    if value == "image":
        return "image"
    if value == "tensor":
        return "tensor"
    raise InputError("sidecar io", got=repr(value), expected="image or tensor")


def _checked_target(value: Mapping[str, Any]) -> dict[str, Any]:
    target = dict(value)
    gpus = target.get("gpu", [])
    if not isinstance(gpus, list) or not all(isinstance(each, str) for each in gpus):
        raise InputError("sidecar target", got=f"gpu {gpus!r}", expected="a list of compute capabilities")
    return target


def checked_profile(value: object) -> Mapping[str, Any]:
    """Returns a profile of min, opt and max, each [batch, height, width], if it is one, else raises InputError."""
    shapes = [value.get(key) for key in ("min", "opt", "max")] if isinstance(value, Mapping) else [None]
    if not isinstance(value, Mapping) or not all(isinstance(shape, list) and len(shape) == 3 for shape in shapes):
        raise InputError("sidecar profiles", got=repr(value), expected="min, opt and max of three sizes each")
    if not all(type(size) is int and size >= 1 for shape in shapes for size in shape or ()):
        raise InputError("sidecar profiles", got=repr(value), expected="sizes of 1 or more")
    return value


def sidecar_path(engine: Path) -> Path:
    """Returns the path of an engine's sidecar: in the same folder, `.json` added to the engine's name."""
    return engine.with_name(engine.name + ".json")


def find_sidecar(engine: Path) -> Path | None:
    """Returns the sidecar of an engine: the one beside it, or for a symbolic link else the one beside its target.

    Returns:
        The path; None if there is no sidecar.

    Raises:
        InputError: A folder may not be searched.
    """
    places = (sidecar_path(engine), sidecar_path(real_path(engine)))
    return next((path for path in places if is_file(path)), None)


def load_sidecar(engine: Path) -> Sidecar:
    """Reads and checks the sidecar of an engine.

    Raises:
        ArtifactError: It is missing or malformed, of an unknown format, or belongs to another file.
        InputError: The engine cannot be read.
    """
    path = find_sidecar(engine)
    if path is None:
        raise ArtifactError(
            f"{engine} has no sidecar",
            expected=str(sidecar_path(engine)),
            fix="copy the two files together, or pass spec= to Segmenter",
        )
    try:
        sidecar = Sidecar.from_json(read_json(path))
    except InputError as error:
        raise ArtifactError(f"{path}: {error}") from error
    digest = sha256_file(engine)
    if digest != sidecar.engine.sha256:
        raise ArtifactError(
            f"{engine} is not the file its sidecar describes",
            got=f"sha256 {digest[:12]}...",
            expected=f"{sidecar.engine.sha256[:12]}...",
            fix="copy engine and sidecar together, or build the engine again",
        )
    return sidecar
