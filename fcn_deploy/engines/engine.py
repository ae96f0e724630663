"""What every builder is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import EngineFile, Gate, Io, Sidecar, sidecar_path
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import check_writable, sha256_bytes, write_bytes, write_json
from fcn_deploy.quantization.bias import Means
from fcn_deploy.quantization.methods import METHODS
from fcn_deploy.quantization.prequantized import is_prequantized
from fcn_deploy.quantization.rounding import Rounding, check_rounding

RequestedPrecision = Literal["fp32", "fp16", "int8"]
TargetCpu = Literal["generic", "vnni", "native"]

# Measured to agree best, with uint8 as with int8: docs/quantization.md.
DEFAULT_METHOD = "mse"


NO_MEANS = (
    "No bias was corrected, for the ranges hold no means: calibrate again, or leave it out with --no-bias-correction."
)


@dataclass(frozen=True)
class BuildConfig:
    """What to build.

    Attributes:
        precision: `fp32`, `fp16` or `int8`.
        io: `image` (uint8 images to labels) or `tensor` (float image to logits).
        method: How INT8 ranges are chosen: a key of `quant.methods.METHODS`.
        target_cpu: Where it will run: `generic` is right on every CPU, `vnni` uses all 8 bits of a weight and needs
            VNNI, `native` asks this machine.
        int8_layers: Names of the layers that an INT8 engine quantises; None for all that can be but those that
            `quant.selection.float_by_default` keeps float.
        bias_correction: Whether the biases of INT8 layers make up for the rounding of their weights; see `quant.bias`.
        weight_rounding: How the weights of INT8 layers are rounded: `nearest` or `correlated` (see `quant.rounding`).
            None for what measured best: `correlated` for ONNX Runtime, `nearest` for TensorRT.
        winograd: Names of the layers that an engine for ONNX Runtime multiplies by `passes.winograd` where they are
            float, which takes more memory, and up to a second more to load; None for those of many channels.
        spec: The net's, for a model that another tool made of an exported one and left without.
    """

    precision: RequestedPrecision = "fp32"
    io: Io = "image"
    method: str = DEFAULT_METHOD
    target_cpu: TargetCpu = "generic"
    int8_layers: tuple[str, ...] | None = None
    bias_correction: bool = True
    weight_rounding: Rounding | None = None
    winograd: tuple[str, ...] | None = None
    spec: ModelSpec | None = None

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, ("fp32", "fp16", "int8"))
        _one_of("io", self.io, ("image", "tensor"))
        _one_of("calibration method", self.method, tuple(METHODS))
        _one_of("target CPU", self.target_cpu, ("generic", "vnni", "native"))
        if self.weight_rounding is not None:
            check_rounding(self.weight_rounding)
        if self.int8_layers is not None and self.precision != "int8":
            raise UsageError("layers to quantise without INT8", got=self.precision, expected="int8")


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"unknown {what}", got=repr(value), expected=" or ".join(choices))


@dataclass(frozen=True, eq=False)
class Engine:
    """An engine that has not been written yet.

    Attributes:
        data: The content of its file.
        sidecar: What it is; its `engine.file` is filled in by `save`.
    """

    data: bytes
    sidecar: Sidecar

    def save(self, path: Path, gate: Gate | None = None) -> Sidecar:
        """Writes the engine and its sidecar, each atomically; the sidecar last, for it vouches for the engine.

        Raises:
            InputError: The path cannot be written.
        """
        file = EngineFile(path.name, sha256_bytes(self.data), len(self.data))
        sidecar = replace(self.sidecar, engine=file, gate=gate)
        check_writable(sidecar_path(path))
        write_bytes(path, self.data)
        write_json(sidecar_path(path), sidecar.to_json())
        return sidecar


def brings_scales(model: ir.Model, config: BuildConfig, ranges: Ranges | None) -> bool:
    """Checks that it is said, and said once, how an INT8 engine is quantised, and returns whether the model says so.

    Args:
        model: As exported, or with Q/DQ.
        config: What is to be built of it.
        ranges: What calibration saw, or None.

    Raises:
        InputError: The model is quantised by integer operators.
        UsageError: INT8 of a float model without ranges; ranges for a model with Q/DQ, or another precision of it.
    """
    given = is_prequantized(model)
    if given and config.precision != "int8":
        raise UsageError(
            "the graph is INT8 already: it holds Q/DQ",
            got=f"--{config.precision}",
            fix="build it with --int8, or build the float model it was made from",
        )
    if given and ranges is not None:
        raise UsageError(
            "the graph brings its own scales", got="ranges", fix="leave them out, or quantise the float model by them"
        )
    if config.precision == "int8" and not given and ranges is None:
        raise UsageError("INT8 needs ranges", fix="name calibration images or a ranges file")
    return given


def check_ranges(ranges: Ranges, model_sha256: str) -> None:
    """Checks that ranges are those of a model.

    Raises:
        InputError: They belong to another.
    """
    if ranges.model_sha256 != model_sha256:
        raise InputError(
            "the ranges belong to another model",
            got=f"ranges of {ranges.model_sha256[:12]}...",
            expected=f"ranges of {model_sha256[:12]}...",
            fix="calibrate this model: fcn-deploy calibrate",
        )


def means_for(config: BuildConfig, ranges: Ranges) -> Means:
    """Returns the means by which an INT8 build corrects biases: none where it is not to, or where there are none."""
    return ranges.means if config.bias_correction else {}
