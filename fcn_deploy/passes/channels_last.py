"""Quantises what a float convolution makes in the layout that integer convolutions read, channels last.

ONNX Runtime keeps the maps of float convolutions in blocks of channels, and runs integer ones with channels last.
Where the one leads to the other it goes by way of [N, C, H, W]: it reorders the blocks, quantises, and transposes bytes
one by one. With the Transpose in front of the quantiser, reordering gives channels last at once.

Its optimisers know better where a Transpose belongs and would move the quantiser back in front of it; they do not look
through a Flatten.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from fcn_deploy.graph.edit import constant_of

_log = logging.getLogger(__name__)

_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# Blocks are of 8 or 16 channels; maps of other numbers are not kept in them.
_BLOCK = 16


def quantize_channels_last(model: ir.Model) -> tuple[ir.Model, bool]:
    """Puts the quantisers between a float convolution and integer ones between two Transposes."""
    found = [node for node in model.graph if node.op_type == "QuantizeLinear" and _fits(node)]
    for node in found:
        _rewrite(model.graph, node)
    if not found:
        _log.debug("quantize_channels_last: no quantiser between a float convolution and integer ones")
    return model, bool(found)


def _fits(quantizer: ir.Node) -> bool:
    readers = [use.node for use in quantizer.outputs[0].uses()]
    integer = all(
        reader.op_type == "DequantizeLinear" and all(use.node.op_type == "Conv" for use in reader.outputs[0].uses())
        for reader in readers
    )
    source = quantizer.inputs[0].producer() if quantizer.inputs[0] is not None else None
    if source is not None and source.op_type == "Relu" and source.inputs[0] is not None:
        source = source.inputs[0].producer()
    if not readers or not integer or source is None or source.op_type != "Conv":
        return False
    weights, scale = constant_of(source.inputs[1]), constant_of(quantizer.inputs[1])
    # Weights behind a DequantizeLinear are no constant: that convolution is an integer one.
    if weights is None or weights.ndim != 4 or weights.shape[0] % _BLOCK:
        return False
    return scale is not None and scale.size == 1


def _rewrite(graph: ir.Graph, quantizer: ir.Node) -> None:
    name, values, quantized = str(quantizer.name), quantizer.inputs[0], quantizer.outputs[0]
    last = ir.node("Transpose", [values], {"perm": _LAST}, name=f"{name}/channels_last")
    shape = ir.node("Shape", last.outputs, name=f"{name}/shape")
    flat = ir.node("Flatten", last.outputs, {"axis": 3}, name=f"{name}/flat")
    quantizer.replace_input_with(0, flat.outputs[0])
    whole = ir.node("Reshape", [quantized, shape.outputs[0]], name=f"{name}/whole")
    first = ir.node("Transpose", whole.outputs, {"perm": _FIRST}, name=f"{name}/channels_first")
    for node in (last, shape, flat, whole, first):
        node.outputs[0].name = node.name
    first.outputs[0].type = quantized.type
    readers = [use for use in quantized.uses() if use.node is not whole]
    graph.insert_before(quantizer, [last, shape, flat])
    graph.insert_after(quantizer, [whole, first])
    for reader in readers:
        reader.node.replace_input_with(reader.idx, first.outputs[0])
    quantized.shape = None
