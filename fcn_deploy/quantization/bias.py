"""Bias correction: rounding weights shifts the mean of what a layer gives; its bias takes the shift back.

After Nagel et al. 2019, section 4.2 (https://arxiv.org/abs/1906.04721), with the means of the inputs that calibration
saw: b' = b - (Wq - W) * E[x]. Padding is ignored: every tap is taken to read the mean of its channel, also where at the
border it reads zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.quantization.tensors import data_input

Means = Mapping[str, NDArray[np.float64]]


def input_mean(conv: ir.Node, weights: NDArray[np.floating], means: Means | None) -> NDArray[np.float64]:
    """Returns the mean of each channel that a convolution reads.

    Args:
        conv: Before anything stands between it and the tensor that calibration saw.
        weights: Of the convolution, [O, C / groups, kH, kW].
        means: By tensor name, float64 [C]. None or empty: nothing is to be corrected.

    Returns:
        float64 [C]; zeros, by which nothing is corrected, where there are no means.

    Raises:
        InputError: There are means and none of this tensor, or of another number of channels; or the bias is computed.
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
    if _bias(conv) is not None and bias_of(conv) is None:
        raise InputError(
            f"the bias of {conv.name} cannot be corrected",
            got="a bias that the graph computes",
            expected="a constant",
            fix="build without bias correction: --no-bias-correction",
        )
    return means[name]


def mean_shift(
    weights: NDArray[np.floating],
    integers: NDArray[np.number],
    scale: NDArray[np.float32],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns how far the rounding of its weights shifts the mean of what a convolution gives: (Wq - W) * E[x].

    Args:
        weights: float [O, C / groups, kH, kW].
        integers: What they are rounded to, [O, C / groups, kH, kW].
        scale: Of the integers, [O].
        mean: Of each channel of the input, [C].

    Returns:
        float64 [O]; to be subtracted from the bias.
    """
    return scale.astype(np.float64) * mean_output(integers, mean) - mean_output(weights, mean)


def mean_output(weights: NDArray[np.number], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean of what a convolution gives, without its bias and its padding.

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
    """Returns the bias of a convolution, [O], where it has one that is constant."""
    return constant_of(_bias(conv))


def set_bias(conv: ir.Node, bias: ir.Value) -> None:
    """Makes a convolution read `bias`, whether or not it has read one before."""
    conv.resize_inputs(3)
    conv.replace_input_with(2, bias)


def _bias(conv: ir.Node) -> ir.Value | None:
    return conv.inputs[2] if len(conv.inputs) > 2 else None
