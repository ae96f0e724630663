"""What to build: the options of every builder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from fcn_deploy.artifacts.ranges import OBSERVED_ON_NOISE, Ranges
from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.errors import UsageError
from fcn_deploy.quantization.methods import METHODS
from fcn_deploy.quantization.rounding import Rounding, check_rounding

if TYPE_CHECKING:
    from fcn_deploy.quantization.bias import Means  # needs onnx_ir, and options are checked without it

RequestedPrecision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
# The precisions whose engines hold Q/DQ.
QUANTIZED = ("int8", "fp8")
TargetCpu = Literal["generic", "vnni", "native"]

# What an engine computes in where it is not quantised.
Base = Literal["fp16", "fp32", "bf16"]

# Measured to agree best, with uint8 as with int8: docs/quantization.md.
DEFAULT_METHOD = "mse"
# The range of FP8 is the largest value that was seen: E4M3's steps are finer near zero, so cutting off gains nothing.
DEFAULT_FP8_METHOD = "minmax"
# The method is chosen on images: mixed_precision.method_search.
AUTO_METHOD = "auto"

_NO_MEANS = "The ranges hold no means, so no bias was corrected: calibrate again, or set `bias_correction=False`."


@dataclass(frozen=True)
class BuildConfig:
    """What to build.

    Attributes:
        precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`.
        io: `image` (uint8 images to labels) or `tensor` (float image to logits).
        method: INT8 and FP8: how ranges are chosen, a key of `quantization.methods.METHODS`.
        target_cpu: The CPU that will run it: `generic` is right on every CPU, `vnni` uses all 8 bits of a weight and
            needs VNNI or any 64-bit Arm, `native` takes what this machine has.
        int8_layers: INT8: names of the layers to quantise. None quantises all that can be, except those that
            `quantization.selection.float_by_default` keeps float.
        bias_correction: INT8 and FP8: whether biases make up for the rounding of the weights; see `quantization.bias`.
        weight_rounding: INT8: how weights are rounded, `nearest` or `correlated`; see `quantization.rounding`. None
            takes what measured best: `correlated` for ONNX Runtime and OpenVINO, `nearest` for TensorRT.
        winograd: ONNX Runtime: names of the layers that `passes.winograd` rewrites, if they are float. That takes more
            memory, and up to a second more to load. None takes the layers with many channels.

    Raises:
        UsageError: An option has an unknown value, or does not apply to the precision.
    """

    precision: RequestedPrecision = "fp32"
    io: Io = "image"
    method: str = DEFAULT_METHOD
    target_cpu: TargetCpu = "generic"
    int8_layers: tuple[str, ...] | None = None
    bias_correction: bool = True
    weight_rounding: Rounding | None = None
    winograd: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _require_known("precision", self.precision, get_args(RequestedPrecision))
        _require_known("io", self.io, get_args(Io))
        _require_known("calibration method", self.method, tuple(METHODS))
        _require_known("target CPU", self.target_cpu, get_args(TargetCpu))
        if self.weight_rounding is not None:
            check_rounding(self.weight_rounding)
        if self.precision != "int8":
            self._refuse_options_of_int8()
        if self.precision in ("fp16", "bf16", "fp8") and self.winograd is not None:
            raise refused_winograd(self.winograd, f'`precision="{self.precision}"`')

    @property
    def quantized(self) -> bool:
        """Whether layers are quantised, by ranges or by the Q/DQ of the model."""
        return self.precision in QUANTIZED

    def _refuse_options_of_int8(self) -> None:
        asked = f'`precision="{self.precision}"`'
        add = 'add `precision="int8"`'
        if self.method != DEFAULT_METHOD and not self.quantized:
            got = f'`calib_method="{self.method}"` with {asked}'
            raise UsageError("calibration is for INT8", got=got, fix=f"{add}, or leave it out")
        if self.int8_layers is not None:
            raise UsageError("layers to quantise without INT8", got=asked, fix=add)
        if not self.bias_correction and not self.quantized:
            raise UsageError("biases are corrected in INT8", got=f"`bias_correction=False` with {asked}", fix=add)
        if self.weight_rounding is not None:
            raise UsageError("weights are rounded in INT8", got=f"`weight_rounding` with {asked}", fix=add)

    def as_float(self, precision: Base) -> BuildConfig:
        """Returns the same request in another precision: the options of INT8 and FP8 go back to their defaults."""
        winograd = self.winograd if precision == "fp32" else None
        return BuildConfig(precision, self.io, target_cpu=self.target_cpu, winograd=winograd)

    def bias_means(self, ranges: Ranges) -> Means:
        """Returns the means that an INT8 or FP8 build corrects biases by; empty if it corrects none."""
        return ranges.means if self.bias_correction else {}

    def warnings(self, ranges: Ranges | None) -> tuple[str, ...]:
        """Returns what to tell the user about the ranges of a build, as sentences."""
        if ranges is None:
            return ()
        missing = self.quantized and self.bias_correction and not ranges.means
        return (*([OBSERVED_ON_NOISE] if ranges.data.random else []), *([_NO_MEANS] if missing else []))


def default_method(precision: RequestedPrecision) -> str:
    """Returns how the ranges of an engine are chosen if the user does not say."""
    return DEFAULT_FP8_METHOD if precision == "fp8" else DEFAULT_METHOD


def default_target(backend: str, precision: RequestedPrecision) -> TargetCpu:
    """Returns the CPU that an engine is built for if the user names none: any, but for INT8 on OpenVINO one with VNNI.

    OpenVINO is for recent CPUs of servers and desktops, which have it.
    """
    return "vnni" if (backend, precision) == ("openvino", "int8") else "generic"


def require_base(base: str) -> None:
    """Checks the name of a base precision of TensorRT.

    Raises:
        UsageError: It is unknown.
    """
    _require_known("base precision", base, get_args(Base))


def refused_winograd(layers: tuple[str, ...], where: str) -> UsageError:
    """Returns the error for a build that does not use Winograd's algorithm, but was given layers for it."""
    option = "`winograd`" if layers else "`winograd=False`"
    return UsageError("nothing is multiplied by Winograd's algorithm", got=f"{option} for {where}", fix="leave it out")


def _require_known(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"unknown {what}", got=repr(value), expected=" or ".join(choices))
