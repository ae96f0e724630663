"""The JSON beside an engine: what it is, what it was made from, and where it may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fcn_deploy.artifacts.json import FORMAT, check_format, known_fields
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.files import read_json, sha256_file

Io = Literal["image", "tensor"]

# In an ONNX engine's metadata_props, with its precision and target CPU (`int8-vnni`); an exported model, which runs
# without a sidecar, does not have it.
ENGINE_KEY = "fcn_deploy.engine"

# The method of a precision whose scales were in the model that the engine was built from.
GIVEN_SCALES = "given"

# What that key ends in, and a sidecar's `target` has as a key, for models that compute on a CPU what an engine for
# another machine would give.
SIMULATED = "-simulated"
SIMULATES = "simulates"


# Keys of a sidecar that stand there only where there is something to say.
_OF_SOME = ("winograd", "tuning")


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
class Budget:
    """The accuracy budget a mix of precisions was chosen by.

    Attributes:
        criterion: Such as `agreement>=99%`.
        measured: The criterion's measure of the mix, on the images it was chosen on.
        bound: The pessimistic end of its 95% interval, which keeps the criterion.
        images: How many images.
    """

    criterion: str
    measured: float
    bound: float
    images: int

    def __post_init__(self) -> None:
        numbers = (self.measured, self.bound, self.images)
        if not isinstance(self.criterion, str) or not all(isinstance(number, int | float) for number in numbers):
            raise InputError("sidecar precision budget", got=repr(self), expected="a criterion and what was measured")


@dataclass(frozen=True)
class Precision:
    """What was asked of the builder and what the engine does.

    Attributes:
        requested: `fp32`, `fp16` or `int8`.
        base: What the layers that are not quantised run in.
        method: How ranges were chosen; `given` where the model brought its own scales, None where nothing was
            quantised.
        layers: Precision asked for each quantisable layer.
        achieved: What an inspection of the engine found: `requested` again where every layer runs in what was asked for
            it; `partial` where that holds for those layers that the inspection tells of, and not of all; `mixed` where
            a layer runs in something else; `unknown` where nobody looked or nothing was told.
        audited: Whether calibration's values were looked through for what FP16 cannot hold; None where nothing is FP16.
        kept_fp32: The tensors that stay FP32 for that reason, by name.
        achieved_layers: Precision that the inspection found for each layer, None for one it does not tell of; None
            where nobody looked layer by layer.
        tried: Agreement with the exported model, 0..1, by calibration method, where `auto` chose; else None.
        budget: What the INT8 layers were chosen by; None where that was no accuracy budget.
        bias_corrected: Whether biases make up for the rounding of weights; None where nothing was quantised, or it is
            not known.
        weight_rounding: How weights were rounded, `nearest` or `correlated`; None where nothing was quantised, or it is
            not known.
    """

    requested: str
    base: str
    method: str | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    achieved: str = "unknown"
    audited: bool | None = None
    kept_fp32: tuple[str, ...] = ()
    achieved_layers: Mapping[str, str | None] | None = None
    tried: Mapping[str, float] | None = None
    budget: Budget | None = None
    bias_corrected: bool | None = None
    weight_rounding: str | None = None

    def __post_init__(self) -> None:
        if self.requested not in ("fp32", "fp16", "int8"):
            raise InputError("sidecar precision", got=repr(self.requested), expected="fp32, fp16 or int8")
        if not isinstance(self.layers, Mapping) or not all(isinstance(each, str) for each in self.layers.values()):
            raise InputError("sidecar precision of layers", got=repr(self.layers), expected="a precision by layer")
        if self.audited not in (None, True, False):
            raise InputError("sidecar precision audited", got=repr(self.audited), expected="true or false")
        if not isinstance(self.kept_fp32, tuple) or not all(isinstance(name, str) for name in self.kept_fp32):
            raise InputError("sidecar precision kept_fp32", got=repr(self.kept_fp32), expected="names of tensors")
        if self.achieved_layers is not None and not isinstance(self.achieved_layers, Mapping):
            got = repr(self.achieved_layers)
            raise InputError("sidecar precision achieved_layers", got=got, expected="a precision by layer")
        tried = self.tried
        if tried is not None and not (
            isinstance(tried, Mapping) and all(isinstance(share, int | float) for share in tried.values())
        ):
            raise InputError("sidecar precision tried", got=repr(tried), expected="an agreement by method")
        if self.bias_corrected not in (None, True, False):
            got = repr(self.bias_corrected)
            raise InputError("sidecar precision bias_corrected", got=got, expected="true or false")
        if not isinstance(self.weight_rounding, str | None):
            got = repr(self.weight_rounding)
            raise InputError("sidecar precision weight_rounding", got=got, expected="the name of one")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data; what does not apply or was not found out is left out."""
        data = asdict(self)
        optional = ("audited", "kept_fp32", "achieved_layers", "bias_corrected", "weight_rounding", "tried", "budget")
        return {key: value for key, value in data.items() if key not in optional or value not in (None, ())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Precision:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
        """
        known = known_fields(cls, data)
        if isinstance(known.get("kept_fp32"), list):
            known["kept_fp32"] = tuple(known["kept_fp32"])
        if known.get("budget") is not None:
            known["budget"] = Budget(**known_fields(Budget, known["budget"]))
        return cls(**known)


@dataclass(frozen=True)
class Gate:
    """The measured agreement with the reference, and whether it was enough.

    Attributes:
        agreement: Share of pixels labelled alike, 0..1.
        passed: Whether the gate was met.
        error: Largest difference of the logits over their range, where logits could be compared.
        miou_drop: In points, where labels were given.
        criteria: What was held against, such as `agreement>=97%`; empty where an earlier version wrote the sidecar.
    """

    agreement: float
    passed: bool
    error: float | None = None
    miou_drop: float | None = None
    criteria: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Written so that NaN, which a gate that was not passed may hold, is in every range.
        if not _is_number(self.agreement) or self.agreement < 0 or self.agreement > 1:
            raise InputError("sidecar gate agreement", got=repr(self.agreement), expected="a share, 0 to 1")
        if not isinstance(self.passed, bool):
            raise InputError("sidecar gate passed", got=repr(self.passed), expected="true or false")
        if self.error is not None and (not _is_number(self.error) or self.error < 0):
            raise InputError("sidecar gate error", got=repr(self.error), expected="0 or more, or null")
        if self.miou_drop is not None and (not _is_number(self.miou_drop) or abs(self.miou_drop) > 100):
            raise InputError("sidecar gate miou_drop", got=repr(self.miou_drop), expected="-100 to 100 points, or null")
        if not isinstance(self.criteria, tuple) or not all(isinstance(each, str) for each in self.criteria):
            raise InputError("sidecar gate criteria", got=repr(self.criteria), expected="a list of texts")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gate:
        """Reads what a sidecar holds of it.

        Raises:
            InputError: A value is bad.
        """
        known = known_fields(cls, data)
        if isinstance(known.get("criteria"), list):
            known["criteria"] = tuple(known["criteria"])
        return cls(**known)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
class Tuning:
    """How kernels were chosen by measuring.

    Attributes:
        shape: Of the images, `NxHxW`.
        threads: CPU threads; None for all cores.
        cpu: The processor, as its system calls it.
        milliseconds: Median time of an image to its labels, by what was tried.
        chosen: The one of these that the engine is.
    """

    shape: str
    threads: int | None
    cpu: str
    milliseconds: Mapping[str, float]
    chosen: str

    def __post_init__(self) -> None:
        times = self.milliseconds
        timed = isinstance(times, Mapping) and all(isinstance(each, int | float) for each in times.values())
        if not timed or not isinstance(self.threads, int | None):
            raise InputError("sidecar tuning", got=repr(times), expected="milliseconds by candidate, and threads")
        if not isinstance(self.shape, str) or not isinstance(self.cpu, str):
            raise InputError("sidecar tuning", got=f"{self.shape!r}, {self.cpu!r}", expected="a shape and a processor")
        if self.chosen not in self.milliseconds:
            raise InputError("sidecar tuning", got=repr(self.chosen), expected=f"one of {', '.join(self.milliseconds)}")


@dataclass(frozen=True)
class Sidecar:
    """Everything `<engine>.json` says; see docs/artifacts.md for each key.

    Attributes:
        engine: The file it belongs to.
        backend: `onnxruntime`.
        library: Version of the library that built the engine.
        io: `image` (uint8 images to labels) or `tensor` (float image to logits).
        precision: Asked and achieved.
        spec: The net.
        source: What it was built from.
        target: Where it may run: `cpu`, and `gpu` architectures.
        profiles: Min, opt and max shapes; empty where any size runs.
        gate: The gate it met before `deploy` shipped it; None for an engine that was only built.
        winograd: Names of the layers that ONNX Runtime is given as Winograd's algorithm.
        tuning: How these were chosen, and the INT8 layers; None where nothing was measured.
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

    def to_json(self) -> dict[str, Any]:
        """Returns the sidecar as JSON data, with its format number; what only some engines have only there."""
        fields = {**asdict(self), "precision": self.precision.to_json(), "spec": self.spec.to_json()}
        return {"format": FORMAT, **{key: value for key, value in fields.items() if value or key not in _OF_SOME}}

    @classmethod
    def from_json(cls, data: object) -> Sidecar:
        """Reads what `to_json` wrote.

        Raises:
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, "the sidecar")
        try:
            return cls(
                engine=EngineFile(**known_fields(EngineFile, fields["engine"])),
                backend=str(fields["backend"]),
                library=str(fields["library"]),
                io=_checked_io(fields["io"]),
                precision=Precision.from_json(fields["precision"]),
                spec=ModelSpec.from_json(fields["spec"]),
                source=Source(**known_fields(Source, fields["source"])),
                target=_checked_target(fields["target"]),
                profiles=tuple(_checked_profile(profile) for profile in fields["profiles"]),
                gate=Gate.from_json(fields["gate"]) if fields.get("gate") else None,
                winograd=_checked_names(fields.get("winograd", [])),
                tuning=Tuning(**known_fields(Tuning, fields["tuning"])) if fields.get("tuning") else None,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the sidecar is malformed", got=f"{type(error).__name__}: {error}") from error


def _checked_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError("sidecar winograd", got=repr(value), expected="a list of names of layers")
    return tuple(value)


def _checked_io(value: object) -> Io:
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


def _checked_profile(value: object) -> Mapping[str, Any]:
    """A profile of min, opt and max, each [batch, height, width]."""
    shapes = [value.get(key) for key in ("min", "opt", "max")] if isinstance(value, Mapping) else [None]
    if not isinstance(value, Mapping) or not all(isinstance(shape, list) and len(shape) == 3 for shape in shapes):
        raise InputError("sidecar profiles", got=repr(value), expected="min, opt and max of three sizes each")
    if not all(type(size) is int and size >= 1 for shape in shapes for size in shape or ()):
        raise InputError("sidecar profiles", got=repr(value), expected="sizes of 1 or more")
    return value


def sidecar_path(engine: Path) -> Path:
    """Returns where the sidecar of `engine` lies: beside it, `.json` added to its name."""
    return engine.with_name(engine.name + ".json")


def load_sidecar(engine: Path) -> Sidecar:
    """Reads and checks the sidecar of an engine.

    Raises:
        ArtifactError: It is missing or malformed, of an unknown format, or belongs to another file.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        raise ArtifactError(
            f"{engine} has no sidecar",
            expected=str(path),
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
