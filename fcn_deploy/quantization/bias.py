"""Bias correction: rounding the weights of a layer shifts the mean of its output; the bias takes the shift back.

Source: Nagel et al. 2019, section 4.2 (https://arxiv.org/abs/1906.04721): b' = b - (Wq - W) * E[x]. E[x] is the mean of
the inputs that calibration saw. Padding is ignored: every tap is assumed to read the mean of its channel, even at the
border, where it reads zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of, optional_input
from fcn_deploy.quantization.tensors import data_input

Means = Mapping[str, NDArray[np.float64]]

# The index of the bias among the inputs of a convolution.
_BIAS = 2


def input_mean(conv: ir.Node, weights: NDArray[np.floating], means: Means | None) -> NDArray[np.float64]:
    """Returns the mean of each channel that a convolution reads.

    Args:
        conv: It still reads the tensor that calibration saw, without Q/DQ in between.
        weights: Of the convolution, [O, C / groups, kH, kW].
        means: By tensor name, float64 [C]. None or empty: nothing is corrected.

    Returns:
        float64 [C]; zeros, which correct nothing, if there are no means.

    Raises:
        InputError: `means` is not empty, and does not hold this tensor or has another number of channels for it; or the
            bias of the convolution is not a constant.
    """
    channels = weights.shape[1] * conv.attributes.get_int("group", 1)
    if not means:
        return np.zeros(channels)
    name = str(data_input(conv).name)
    if name not in means or means[name].shape != (channels,):
        raise InputError(
            f"no means for tensor {name}, which {conv.name} reads",
            got=f"{means[name].size} channels" if name in means else f"means of {len(means)} other tensors",
            expected=f"{channels} channels",
            fix="calibrate this model again",
        )
    if optional_input(conv, _BIAS) is not None and bias_of(conv) is None:
        raise InputError(
            f"the bias of {conv.name} cannot be corrected",
            got="a bias that the graph computes",
            expected="a constant",
            fix="build without bias correction: `bias_correction=False`",
        )
    return means[name]


def mean_shift(
    weights: NDArray[np.floating],
    integers: NDArray[np.number],
    scale: NDArray[np.float32],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns how far rounding its weights shifts the mean output of a convolution: (Wq - W) * E[x].

    Args:
        weights: float [O, C / groups, kH, kW].
        integers: The rounded weights, [O, C / groups, kH, kW].
        scale: Of the integers, [O].
        mean: Of each channel of the input, [C].

    Returns:
        float64 [O]; subtract it from the bias.
    """
    return scale.astype(np.float64) * mean_output(integers, mean) - mean_output(weights, mean)


def mean_output(weights: NDArray[np.number], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean output of a convolution, without its bias and its padding.

    Args:
        weights: [O, C / groups, kH, kW].
        mean: Of each channel of the input, [C].

    Returns:
        float64 [O].
    """
    taps = weights.sum(axis=(2, 3), dtype=np.float64)
    groups = len(mean) // taps.shape[1]
    by_group: NDArray[np.float64] = taps.reshape(groups, -1, taps.shape[1]) @ mean.reshape(groups, -1, 1)
    return by_group.reshape(-1)


def bias_of(conv: ir.Node) -> NDArray[np.floating] | None:
    """Returns the bias of a convolution, [O]; None if it has none or the graph computes it."""
    return constant_of(optional_input(conv, _BIAS))


def set_bias(conv: ir.Node, bias: ir.Value) -> None:
    """Makes a convolution read `bias`, with or without an earlier bias."""
    conv.resize_inputs(_BIAS + 1)
    conv.replace_input_with(_BIAS, bias)
