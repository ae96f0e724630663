"""Transposed convolutions: what a node says, and the convolution that computes the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.graph.edit import constant_of, optional_input

# The bilinear kernel's values are at most 1; in float32 they differ by one rounding at most.
_ROUNDING = 2e-7


@dataclass(frozen=True, eq=False)
class Transposed:
    """A transposed convolution of maps by constants.

    Attributes:
        weights: float32 [in, out / groups, kH, kW].
        bias: float32 [out].
        groups: Number of groups.
        stride: Along height and width, as are the two that follow.
        begin: Padding at the start, which is cut off the output.
        missing: How much shorter the output is than if nothing were cut: padding of both sides less output padding.
        separated: Whether the groups are not the node's own, but made because weights are zero between channels.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    groups: int
    stride: tuple[int, int]
    begin: tuple[int, int]
    missing: tuple[int, int]
    separated: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.weights.shape[2], self.weights.shape[3]

    @property
    def is_bilinear(self) -> bool:
        """Whether each channel is upsampled by itself, by the bilinear kernel of the stride."""
        channels, per_group = self.weights.shape[:2]
        if per_group * self.groups != channels or any(stride < 2 for stride in self.stride):
            return False
        vertical, horizontal = (_bilinear(*axis) for axis in zip(self.kernel, self.stride, strict=True))
        if vertical is None or horizontal is None:
            return False
        own = np.arange(channels) % per_group
        expected = np.zeros_like(self.weights)
        expected[np.arange(channels), own] = np.outer(vertical, horizontal)
        return bool(np.abs(self.weights - expected).max() <= _ROUNDING)


def reason_against(node: ir.Node) -> str | None:
    """Returns why a ConvTranspose is not one of maps by constants, of known padding; None if it is.

    Args:
        node: A ConvTranspose.
    """
    weights, bias = constant_of(node.inputs[1]), optional_input(node, 2)
    if weights is None or weights.ndim != 4 or weights.dtype != np.float32:
        return "its weights are not constant float32 [in, out, kH, kW]"
    if bias is not None and constant_of(bias) is None:
        return "its bias is computed"
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        return "its padding depends on the size"
    if set(node.attributes.get_ints("dilations", (1, 1))) != {1}:
        return "it is dilated"
    return None


def read_transposed(node: ir.Node) -> Transposed:
    """Reads a ConvTranspose that `reason_against` has nothing against."""
    weights, bias = constant_of(node.inputs[1]), constant_of(optional_input(node, 2))
    assert weights is not None
    attributes = node.attributes
    groups = attributes.get_int("group", 1)
    top, left, bottom, right = attributes.get_ints("pads", (0, 0, 0, 0))
    extra = attributes.get_ints("output_padding", (0, 0))
    vertical, horizontal = attributes.get_ints("strides", (1, 1))
    separated = groups == 1 and _is_diagonal(weights)
    if separated:
        groups, weights = len(weights), np.ascontiguousarray(np.einsum("ccij->cij", weights)[:, np.newaxis])
    return Transposed(
        weights=weights,
        bias=np.zeros(weights.shape[1] * groups, np.float32) if bias is None else bias,
        groups=groups,
        separated=separated,
        stride=(vertical, horizontal),
        begin=(top, left),
        missing=(top + bottom - extra[0], left + right - extra[1]),
    )


def _is_diagonal(weights: NDArray[np.float32]) -> bool:
    """Whether each of several channels is upsampled by itself."""
    channels = len(weights)
    return 1 < channels == weights.shape[1] and not weights[~np.eye(channels, dtype=bool)].any()


def _bilinear(kernel: int, stride: int) -> NDArray[np.float64] | None:
    """One axis of the kernel that interpolates linearly: 2s taps, of odd strides 2s - 1; None of another size."""
    if kernel != 2 * stride - stride % 2:
        return None
    taps: NDArray[np.float64] = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / stride
    return taps


def reason_against_subpixels(layer: Transposed) -> str | None:
    """Returns why a transposed convolution is no convolution with subpixels in its channels; None if it is one.

    Args:
        layer: As read.
    """
    stride = layer.stride[0]
    if layer.stride != (stride, stride) or stride < 2:
        return f"its strides are {layer.stride}, not two equal ones of 2 or more"
    if any(axis.before < 0 or axis.after < 0 for axis in phases_of(layer)):
        return "it cuts off more than a kernel"
    return None


def phases_of(layer: Transposed) -> tuple[Phases, Phases]:
    """Returns the vertical and the horizontal phases of a transposed convolution of two equal strides."""
    vertical, horizontal = (
        Phases.of(*axis, layer.stride[0]) for axis in zip(layer.kernel, layer.begin, layer.missing, strict=True)
    )
    return vertical, horizontal


@dataclass(frozen=True, eq=False)
class Phases:
    """One axis of a transposed convolution as a convolution for each position within the stride.

    Attributes:
        taps: int [stride, size]: for each position and tap of the convolution, the tap of the transposed one.
        valid: bool, of the same shape: whether there is such a tap.
        before: Padding of the convolution at the start.
        after: Padding at the end.
        excess: How much of the result lies past the transposed convolution's output.
    """

    taps: NDArray[np.int64]
    valid: NDArray[np.bool_]
    before: int
    after: int
    excess: int

    @classmethod
    def of(cls, kernel: int, begin: int, missing: int, stride: int) -> Phases:
        """Returns those of one axis; see `Transposed` for its arguments."""
        # Output stride * m + r has input m - d by tap stride * d + r + begin.
        farthest, nearest = (kernel - 1 - begin) // stride, -((stride - 1 + begin) // stride)
        distance = np.arange(farthest, nearest - 1, -1)
        taps = stride * distance + np.arange(stride)[:, np.newaxis] + begin
        valid = (taps >= 0) & (taps < kernel)
        # The transposed convolution gives stride * (input - 1) + rest.
        rest = kernel - missing
        blocks = -(-rest // stride)
        return cls(np.where(valid, taps, 0), valid, farthest, blocks - 1 - nearest, stride * blocks - rest)
