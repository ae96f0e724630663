"""How an engine is opened and run: the options, their checks, and which kind of file takes which."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fcn_deploy.artifacts.sidecar import find_sidecar
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import StrPath, as_path, read_json
from fcn_deploy.runtime.backend import PLAN_SUFFIXES, Provider
from fcn_deploy.runtime.openvino import library as openvino
from fcn_deploy.runtime.tensorrt.settings import Specialization, check_counts, check_specialization
from fcn_deploy.runtime.tiling import Size, check_tile

# An exported model, or an engine for ONNX Runtime; an engine for OpenVINO; a plan of a TensorRT library; a checkpoint
# that PyTorch runs on the CPU.
Kind = Literal["onnx", "openvino", "plan", "checkpoint"]
# Channel order of images.
ImageColor = Literal["rgb", "bgr"]

_TAKEN: dict[Kind, tuple[str, ...]] = {
    "onnx": ("threads", "provider", "fast_math", "tile", "color"),
    "openvino": ("threads", "device_name", "tile", "color"),
    "plan": ("device", "allow_host_code", "contexts", "graphs", "specialization", "tile", "color"),
    "checkpoint": ("threads", "tile", "color"),
}

_TAKERS = {
    "threads": "ONNX engines and models, and for checkpoints",
    "provider": "engines of ONNX Runtime and exported models",
    "device": 'TensorRT plans, and for ONNX with `provider="cuda"`',
    "device_name": "engines of OpenVINO",
    "allow_host_code": "TensorRT plans",
    "contexts": "TensorRT plans",
    "graphs": "TensorRT plans",
    "specialization": "TensorRT plans",
    "tile": "engines, models and checkpoints",
    "color": "engines, models and checkpoints",
    "fast_math": "engines of ONNX Runtime and exported models on a CPU",
}


@dataclass(frozen=True)
class RuntimeOptions:
    """How an engine is opened and run.

    Attributes:
        threads: CPU threads of one inference, at least 1; the library's default if None. For ONNX and checkpoints.
        provider: What ONNX Runtime runs on, `cpu` or `cuda`; the CPU if None. There is no fallback: a provider that
            cannot be had is an error. For ONNX.
        device: Index of the GPU, counted from 0; 0 if None. For plans, and for ONNX with the provider `cuda`.
        allow_host_code: Lets a plan run code on the host, which plans built with `version_compatible=True` bring.
        tile: Height and width in pixels of the tiles that larger images are run in, each at least 1. If None, every
            image is run as a whole.
        color: Channel order of the images that are passed in: `rgb`, or `bgr` for frames of OpenCV. It says nothing
            about the net, whose order the spec has.
        device_name: What OpenVINO runs on, `CPU`, `GPU` or `NPU`; the CPU if None. There is no fallback.
        fast_math: Lets ONNX Runtime multiply matrices of FP32 in BF16, on a 64-bit Arm CPU that has it. For ONNX on a
            CPU.
        contexts: How many calls on a plan run at the same time, at least 1; 8 if None. Others wait.
        graphs: How many CUDA graphs each of them keeps, at least 0; 4 if None. With 0 there are none. For plans.
        specialization: When TensorRT-RTX compiles the kernels of a plan for a shape of the images: `lazy`, in the
            background; `eager`, before the first run of a shape; `none`, never. If None, `eager` for a plan of fixed
            shapes and `lazy` for one that takes ranges.

    Raises:
        UsageError: A value is out of its range.
    """

    threads: int | None = None
    provider: Provider | None = None
    device: int | None = None
    allow_host_code: bool = False
    tile: Size | None = None
    color: ImageColor = "rgb"
    device_name: str | None = None
    fast_math: bool = False
    contexts: int | None = None
    graphs: int | None = None
    specialization: Specialization | None = None

    def __post_init__(self) -> None:
        check_threads(self.threads)
        if self.provider is not None and self.provider not in get_args(Provider):
            raise UsageError("unknown provider", got=repr(self.provider), expected=" or ".join(get_args(Provider)))
        if self.device is not None and not _is_integer(self.device, 0):
            raise UsageError("bad `device`", got=repr(self.device), expected="the index of a GPU, 0 or more")
        openvino.check_device_name(self.device_name)
        if self.tile is not None:
            check_tile(self.tile)
        if self.color not in get_args(ImageColor):
            raise UsageError("unknown `color` of images", got=repr(self.color), expected="rgb or bgr")
        check_counts(self.contexts, self.graphs)
        check_specialization(self.specialization)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the options that do not have their default value."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) != field.default)

    def only(self, names: Collection[str]) -> RuntimeOptions:
        """Returns the options of these names; every other one has its default value."""
        kept: dict[str, Any] = {name: getattr(self, name) for name in self.asked if name in names}
        return RuntimeOptions(**kept)

    def taken_by(self, kind: Kind) -> tuple[str, ...]:
        """Returns the names of the options that a kind of file takes, with this provider."""
        if kind == "onnx" and self.provider == "cuda":
            return (*(name for name in _TAKEN[kind] if name != "fast_math"), "device")
        return _TAKEN[kind]

    def for_kind(self, kind: Kind) -> RuntimeOptions:
        """Returns the options that a kind of file takes; every other one has its default value."""
        return self.only(self.taken_by(kind))

    def check_taken(self, files: Sequence[tuple[str, Kind]]) -> None:
        """Checks that every option that was asked for is taken by at least one of the files to open.

        Args:
            files: What an error message calls each, and its kind.

        Raises:
            UsageError: No file takes an option; the message names the option and what takes it.
        """
        taken = {option for _, kind in files for option in self.taken_by(kind)}
        for option in self.asked:
            if option not in taken:
                raise UsageError(
                    f"`{option}` is for {_TAKERS[option]}", got=", ".join(name for name, _ in files), fix="leave it out"
                )


def kind_of(engine: StrPath) -> Kind:
    """Returns the kind of an engine or model: `plan` by the suffix of its name, `openvino` by its sidecar, else `onnx`.

    Raises:
        InputError: The folder of the engine may not be searched.
    """
    path = as_path(engine)
    if path.suffix in PLAN_SUFFIXES:
        return "plan"
    sidecar = find_sidecar(path)
    return "openvino" if sidecar is not None and _backend_of(sidecar) == openvino.NAME else "onnx"


def _backend_of(sidecar: Path) -> object:
    try:
        data = read_json(sidecar)
    except InputError:
        return None  # what is wrong with it is said when it is loaded
    return data.get("backend") if isinstance(data, dict) else None


def check_threads(threads: int | None) -> None:
    """Checks a number of CPU threads.

    Raises:
        UsageError: It is neither None nor an int of at least 1.
    """
    if threads is not None and not _is_integer(threads, 1):
        raise UsageError("bad number of threads", got=repr(threads), expected="1 or more")


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
