"""Which integers the CPU kernels of ONNX Runtime and OpenVINO take."""

from __future__ import annotations

from dataclasses import dataclass

from fcn_deploy.errors import InputError
from fcn_deploy.quantization.params import AsymmetricUint8, SymmetricInt8
from fcn_deploy.quantization.rounding import Rounding, check_rounding


@dataclass(frozen=True)
class CpuScheme:
    """How to quantise for a library on a CPU: activations asymmetric uint8, weights symmetric int8.

    Attributes:
        weight_limit: Weights become integers in -limit..limit. 64 is right on every CPU: x86 kernels without VNNI add
            two products of a uint8 and an int8 in 16 bits, and 2 * 255 * 64 just fits. 127 needs VNNI on x86, and is
            right on any 64-bit Arm.
        rounding: How weights are rounded: `nearest` or `correlated`; see `fcn_deploy.quantization.rounding`.

    Raises:
        InputError: The limit is neither 64 nor 127.
        UsageError: The rounding is unknown.
    """

    weight_limit: int = 64
    rounding: Rounding = "correlated"

    def __post_init__(self) -> None:
        if self.weight_limit not in (64, 127):
            raise InputError("bad weight limit", got=self.weight_limit, expected="64 or 127")
        check_rounding(self.rounding)

    @property
    def activations(self) -> AsymmetricUint8:
        """The integers of activations."""
        return AsymmetricUint8()

    @property
    def weights(self) -> SymmetricInt8:
        """The integers of weights."""
        return SymmetricInt8(self.weight_limit)
