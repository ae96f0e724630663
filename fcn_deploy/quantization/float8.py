"""How real numbers become FP8 of type E4M3 and back: 1 bit of sign, 4 of exponent, 3 of mantissa, at most 448.

    number = E4M3(clip(x / scale, -448, 448))       rounded to the nearest, halves to the even neighbour
    x'     = number * scale

This is ONNX's QuantizeLinear to `float8e4m3fn` with `saturate=1` (https://onnx.ai/onnx/technical/float8.html). E4M3 has
no infinity; the type and its limits are those of "FP8 Formats for Deep Learning" (https://arxiv.org/abs/2209.05433).
Zero is exact, and the steps grow with the numbers. So a scale only has to bring the largest number to 448 at most: one
scale for all weights of a layer does, and small channels keep their 3 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.errors import InputError
from fcn_deploy.quantization.params import ScaleType, check_scale_type, rounded_scale

# The largest number of E4M3.
LARGEST = 448.0


@dataclass(frozen=True, eq=False)
class Float8Params:
    """How one tensor is quantised to E4M3.

    Attributes:
        scale: A positive, finite float, [].
        number: The type of the quantised numbers.
        zero_point: The number that stands for 0.0.

    Raises:
        InputError: The scale is not a positive, finite number.
    """

    scale: NDArray[np.floating]
    number: ClassVar[np.dtype[Any]] = np.dtype(ml_dtypes.float8_e4m3fn)
    zero_point: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.scale.ndim or not 0 < float(self.scale) < np.inf:
            raise InputError("bad scale", got=self.scale, expected="one positive, finite number")

    def quantize(self, values: NDArray[np.floating]) -> NDArray[Any]:
        """Quantises values.

        Args:
            values: Finite; any shape.

        Returns:
            E4M3, of the shape of `values`.
        """
        # In float32, as ONNX computes it: rounded from float64, a few numbers next to the middle of two would differ.
        scaled = np.asarray(values, np.float32) / np.float32(self.scale)
        return np.asarray(scaled.clip(-LARGEST, LARGEST).astype(self.number))

    def dequantize(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the values that E4M3 numbers stand for, float64, of the same shape."""
        values: NDArray[np.float64] = numbers.astype(np.float64) * float(self.scale)
        return values


@dataclass(frozen=True)
class Float8:
    """E4M3 with one scale for each tensor, by which its largest absolute value becomes 448.

    Weights have one scale for all channels too: with one for each, TensorRT-RTX computes the scales, the bias and the
    ReLU in kernels of their own (measured: docs/tensorrt-graphs.md).

    Attributes:
        scale_type: What scales are rounded to, upwards; see `params.SymmetricInt8`.

    Raises:
        InputError: The scale type is unknown.
    """

    scale_type: ScaleType = "float32"

    def __post_init__(self) -> None:
        check_scale_type(self.scale_type)

    def of_range(self, chosen: Range) -> Float8Params:
        """Returns the parameters of a tensor with a range, whose wider side counts; its scale is 1 if it is empty."""
        return self._of_largest(max(-chosen.lo, chosen.hi))

    def of_weights(self, weights: NDArray[np.floating]) -> Float8Params:
        """Returns the parameters of weights, of any shape; the scale of zeros is 1."""
        return self._of_largest(float(np.abs(weights).max(initial=0)))

    def _of_largest(self, largest: float) -> Float8Params:
        exact = np.asarray(largest / LARGEST if largest > 0 else 1.0, np.float64)
        return Float8Params(np.asarray(rounded_scale(exact, self.scale_type)))
