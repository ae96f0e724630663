"""Balances the channels of a tensor between convolutions, so that one scale for all of them suits each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.errors import InputError
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.quantization.bias import bias_of

# By tensor name: what each channel is divided by, float64 [C], all positive.
Scales = Mapping[str, NDArray[np.float64]]

# The exponent that Xiao et al. call the migration strength, here of root mean squares: what activations gain, weights
# lose, which then have more to represent. Measured on nets of several kinds: docs/quantization.md.
_STRENGTH = 0.4
_MOST = 4.0
# The share of the strongest channel below which channels count as equally weak.
_FAINT = 1e-4


@dataclass(frozen=True, eq=False)
class Balanceable:
    """A tensor whose channels may be scaled without a change of what the net computes.

    Attributes:
        value: The tensor: what a ReLU or PReLU makes of `writer`.
        writer: The convolution that writes it.
        readers: The convolutions that read it, themselves or after max-pools; nothing else does.
    """

    value: ir.Value
    writer: ir.Node
    readers: tuple[ir.Node, ...]


def balanceable(graph: ir.Graph) -> list[Balanceable]:
    """Returns the tensors of a graph whose channels can be balanced, in order.

    With s > 0, f(x / s) = f(x) / s for ReLU, PReLU and max-pools. So a channel may be divided by any s in the weights
    that write it, and multiplied by it in the weights that read it (Nagel et al. 2019, section 4.1,
    https://arxiv.org/abs/1906.04721).
    """
    found = []
    for node in graph:
        if node.op_type != "Conv" or not all(_is_own(value) for value in node.inputs[1:] if value is not None):
            continue
        uses = list(node.outputs[0].uses())
        if len(uses) != 1 or uses[0].node.op_type not in ("Relu", "PRelu") or node.outputs[0].is_graph_output():
            continue
        value = uses[0].node.outputs[0]
        readers = _readers(value)
        if readers:
            found.append(Balanceable(value, node, tuple(readers)))
    return found


def channel_scales(rms: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Returns what to divide the channels of tensors by.

    That is the root mean square of a channel over the geometric mean of all of them, to the power of 0.4, between 1/4
    and 4, after SmoothQuant (Xiao et al. 2023, equation 4, https://arxiv.org/abs/2211.10438). A channel that is always
    0 counts as a ten-thousandth of the strongest.

    Args:
        rms: By tensor name, the root mean square of each channel, float64 [C].
    """
    return {name: _scales(each) for name, each in rms.items()}


def balance(graph: ir.Graph, scales: Scales) -> None:
    """Divides channels by their scales in a graph, which computes what it did before.

    Args:
        graph: Changed in place.
        scales: Of the tensors to balance; empty to change nothing.

    Raises:
        InputError: A tensor is not balanceable in this graph, or has another number of channels.
    """
    known = {str(each.value.name): each for each in balanceable(graph)}
    for name, scale in scales.items():
        found = known.get(name)
        if found is None or _channels(found.writer) != len(scale):
            got = "a tensor that cannot be balanced" if found is None else f"{_channels(found.writer)} channels"
            raise InputError(
                f"bad scales of tensor {name}", got=got, expected=f"{len(scale)} channels", fix="calibrate this model"
            )
        _multiply(found.writer, 1, 1 / scale, axis=0)
        if bias_of(found.writer) is not None:
            _multiply(found.writer, 2, 1 / scale, axis=0)
        for reader in found.readers:
            depthwise = reader.attributes.get_int("group", 1) != 1
            transposed = reader.op_type == "ConvTranspose"
            _multiply(reader, 1, scale, axis=0 if depthwise or transposed else 1)


def _scales(rms: NDArray[np.float64]) -> NDArray[np.float64]:
    if not rms.any():
        return np.ones_like(rms)
    # Channels that are next to 0 get the least scale: what reads them must not make the others' weights coarse.
    floored = np.maximum(rms, rms.max() * _FAINT)
    typical = np.exp(np.log(floored).mean())
    scales: NDArray[np.float64] = np.clip((floored / typical) ** _STRENGTH, 1 / _MOST, _MOST)
    return scales


def _readers(value: ir.Value) -> list[ir.Node]:
    """The convolutions that read a tensor; empty if anything else does, or one of them cannot take a scale."""
    readers: list[ir.Node] = []
    if value.is_graph_output():
        return []
    for use in value.uses():
        node = use.node
        if node.op_type == "MaxPool" and len(node.outputs) == 1:
            found = _readers(node.outputs[0])
        else:
            found = [node] if use.idx == 0 and _takes_scales(node) else []
        if not found:
            return []
        readers += found
    return readers


def _takes_scales(node: ir.Node) -> bool:
    if node.op_type not in ("Conv", "ConvTranspose") or not _is_own(node.inputs[1]):
        return False
    groups = node.attributes.get_int("group", 1)
    weights = constant_of(node.inputs[1])
    depthwise = node.op_type == "Conv" and weights is not None and weights.shape[:2] == (groups, 1)
    return groups == 1 or depthwise


def _is_own(value: ir.Value | None) -> bool:
    return value is not None and constant_of(value) is not None and len(list(value.uses())) == 1


def _channels(conv: ir.Node) -> int:
    weights = constant_of(conv.inputs[1])
    return 0 if weights is None else weights.shape[0]


def _multiply(node: ir.Node, index: int, factors: NDArray[np.float64], axis: int) -> None:
    """Multiplies one of a node's constants along an axis."""
    value = node.inputs[index]
    array = constant_of(value)
    assert value is not None
    assert array is not None
    shape = [1] * array.ndim
    shape[axis] = -1
    value.const_value = ir.tensor((array * factors.reshape(shape)).astype(array.dtype), name=value.name)
