"""How real numbers become integers and back: the one place with the arithmetic of quantising.

    integer = clip(round(x / scale) + zero point, lowest, highest)      halves are rounded to the even neighbour
    x'      = (integer - zero point) * scale

These are ONNX's definitions (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html and
https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html). Zero is always exact. A scheme, `AsymmetricUint8` or
`SymmetricInt8`, turns a range or weights into `QuantParams`; those quantise and dequantise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError

# float64 is for comparing ranges: emitted scales are float32, or float32 numbers that FP16 or BF16 holds.
ScaleType = Literal["float16", "bfloat16", "float32", "float64"]
IntegerType = Literal["uint8", "int8", "int32"]

# The smallest positive FP16 number.
_SMALLEST_FP16 = np.float32(2.0**-24)


@dataclass(frozen=True, eq=False)
class QuantParams:
    """How one tensor is quantised.

    Attributes:
        scale: Positive, finite floats: [] for a whole tensor, [channels] for one scale per channel of axis 0.
        integer: The type of the integers.
        lowest: The smallest integer that is used; what lies below is saturated to it.
        highest: The largest integer that is used.
        zero_point: The integer that stands for 0.0.

    Raises:
        InputError: A scale is not a positive, finite number, or the integers do not fit their type.
    """

    scale: NDArray[np.floating]
    integer: IntegerType
    lowest: int
    highest: int
    zero_point: int = 0

    def __post_init__(self) -> None:
        if self.scale.ndim > 1 or not ((self.scale > 0) & (self.scale < np.inf)).all():
            raise InputError("bad scale", got=self.scale, expected="positive, finite numbers, [] or [channels]")
        limits = np.iinfo(self.integer)
        if not limits.min <= self.lowest <= self.zero_point <= self.highest <= limits.max:
            raise InputError(
                "bad integer limits",
                got=f"{self.lowest} to {self.highest} with zero point {self.zero_point}",
                expected=f"zero point within the limits, limits within {self.integer}",
            )

    @property
    def number(self) -> np.dtype[Any]:
        """The type of the integers, as a dtype."""
        return np.dtype(self.integer)

    def quantize(
        self, values: NDArray[np.floating], round_steps: Callable[[NDArray[Any]], NDArray[Any]] = np.rint
    ) -> NDArray[np.integer]:
        """Quantises values.

        Args:
            values: Finite; any shape, or [channels, ...] for a scale per channel.
            round_steps: Rounds values in units of their scale to integers of a float type.

        Returns:
            Integers of the type `integer`, lowest..highest, of the shape of `values`.
        """
        rounded = round_steps(values / _along(self.scale, 0, values.ndim))
        if self.zero_point:
            rounded = rounded + self.zero_point
        return np.asarray(rounded.clip(self.lowest, self.highest).astype(self.integer))

    def dequantize(self, integers: NDArray[np.integer]) -> NDArray[np.float64]:
        """Returns the values that integers stand for, float64, of the same shape."""
        return dequantize(integers, self.scale, np.asarray(self.zero_point))


def dequantize(
    integers: NDArray[np.integer], scale: NDArray[np.floating], zero_point: NDArray[np.integer], axis: int = 0
) -> NDArray[np.float64]:
    """Returns the values that integers stand for.

    Args:
        integers: Any shape.
        scale: [] or [1] for a whole tensor, or one per channel.
        zero_point: Of the shape of `scale`, or [] for one that all channels share.
        axis: The axis of the channels.

    Returns:
        float64, of the shape of `integers`.
    """
    shifted = integers.astype(np.float64)
    if zero_point.any():
        shifted -= _along(zero_point, axis, integers.ndim)
    values: NDArray[np.float64] = shifted * _along(scale, axis, integers.ndim)
    return values


@dataclass(frozen=True)
class AsymmetricUint8:
    """uint8, 0..255 from end to end of the range: activations of ONNX Runtime's CPU kernels.

    Attributes:
        scale_type: What scales are rounded to.

    Raises:
        InputError: The scale type is unknown.
    """

    scale_type: ScaleType = "float32"

    def __post_init__(self) -> None:
        check_scale_type(self.scale_type)

    def of_range(self, chosen: Range) -> QuantParams:
        """Returns the parameters of a tensor with a range; its scale is 1 if the range is empty."""
        scale = rounded_scale(np.asarray((chosen.hi - chosen.lo) / 255), self.scale_type)
        # By the rounded scale, for that one is used. A subnormal scale may be rounded by so much that 255 is passed.
        zero_point = min(255, round(-chosen.lo / float(scale)))
        return QuantParams(scale, "uint8", 0, 255, zero_point)


@dataclass(frozen=True)
class SymmetricInt8:
    """int8, -limit..limit about a zero point of 0: all that TensorRT has, and the weights of both targets.

    Attributes:
        limit: At most 127, not 128, so that a number and its negative are equally far from zero.
        scale_type: What scales are rounded to. `float16` and `bfloat16`: to numbers that FP16 or BF16 holds, upwards,
            so that a range stays covered; a scale that is too large for FP16 stays float32, as does the tensor that
            has it.

    Raises:
        InputError: The limit is not in 1..127, or the scale type is unknown.
    """

    limit: int = 127
    scale_type: ScaleType = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= 127:
            raise InputError("bad limit of int8", got=self.limit, expected="1 to 127")
        check_scale_type(self.scale_type)

    def of_range(self, chosen: Range) -> QuantParams:
        """Returns the parameters of a tensor with a range, whose wider side counts for both; scale 1 if it is empty."""
        return self._of_largest(np.asarray(max(-chosen.lo, chosen.hi)), 0.0)

    def of_weights(self, weights: NDArray[np.floating], least_scale: NDArray[np.float64] | float = 0.0) -> QuantParams:
        """Returns the parameters of weights, one scale per output channel.

        Args:
            weights: [channels, ...].
            least_scale: What scales are at least, [] or [channels].

        Returns:
            Parameters by which the largest absolute weight of each channel becomes `limit`, if `least_scale` allows;
            the scale of a channel of zeros is 1.
        """
        return self._of_largest(np.abs(weights).max(axis=tuple(range(1, weights.ndim))), least_scale)

    def _of_largest(self, largest: NDArray[np.floating], least_scale: NDArray[np.float64] | float) -> QuantParams:
        exact = largest.astype(np.float64) / self.limit
        exact = np.maximum(np.where(exact > 0, exact, 1.0), least_scale)
        return QuantParams(rounded_scale(exact, self.scale_type), "int8", -self.limit, self.limit)


def check_scale_type(scale_type: str) -> None:
    """Checks the name of a type of scales.

    Raises:
        InputError: It is unknown.
    """
    if scale_type not in get_args(ScaleType):
        raise InputError("unknown scale type", got=repr(scale_type), expected=" or ".join(get_args(ScaleType)))


def rounded_scale(exact: NDArray[np.float64], scale_type: ScaleType) -> NDArray[np.floating]:
    """Rounds scales; those that become 0, of tensors that are always or nearly zero, are 1."""
    if scale_type == "float64":
        return np.where(exact > 0, exact, 1.0)
    with np.errstate(under="ignore", over="ignore"):
        scale = exact.astype(np.float32)
        scale = np.where(scale > 0, scale, np.float32(1))
        if scale_type == "bfloat16":
            return _up_to_bf16(scale)
        return up_to_fp16(scale) if scale_type == "float16" else scale


def up_to_fp16(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns scales rounded up to numbers that FP16 holds, as float32; those beyond its range stay what they are."""
    with np.errstate(under="ignore", over="ignore"):
        fp16 = scale.astype(np.float16)
    fp16 = np.where(fp16.astype(np.float32) < scale, np.nextafter(fp16, np.float16(np.inf)), fp16)
    wide = fp16.astype(np.float32)
    return np.where(np.isfinite(wide), np.maximum(wide, _SMALLEST_FP16), scale)


def _up_to_bf16(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounds scales up to numbers that BF16 holds: float32 numbers whose lower 16 bits are 0."""
    bits = np.asarray(scale, np.float32).view(np.uint32)
    wide = ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isfinite(wide), wide, scale)


def _along(values: NDArray[Any], axis: int, rank: int) -> NDArray[Any]:
    """Gives values of one axis the shape in which they are broadcast along that axis of a tensor; [] stays []."""
    if values.ndim == 0:
        return values
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)
