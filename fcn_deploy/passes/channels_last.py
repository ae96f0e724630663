"""Quantises the output of a float convolution in the layout that integer convolutions read: channels last."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.graph.edit import NodeWriter, constant_of
from fcn_deploy.graph.ops import DEQUANTIZE, QUANTIZE
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult, rewrite_each

_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# ONNX Runtime's blocks have 8 or 16 channels; a map of another number of channels is not stored in blocks.
_BLOCK = 16


class QuantizeChannelsLast(Rewrite):
    """Transposes a map to channels last before it is quantised, not after.

    What:
        Puts a QuantizeLinear that stands between a float convolution and integer convolutions between two Transposes.

    Why:
        ONNX Runtime keeps the maps of float convolutions in blocks of channels and runs integer convolutions with
        channels last. Between the two it goes by way of [N, C, H, W]: it reorders the blocks, quantises, and transposes
        bytes one by one. With the Transpose before the quantiser, reordering the blocks gives channels last at once.

        ONNX Runtime's optimisers would move the quantiser back before the Transpose; they do not look through a
        Flatten.

    Before -> after:
        Conv -> Relu -> QuantizeLinear -> DequantizeLinear -> Conv
        Conv -> Relu -> Transpose -> Flatten -> QuantizeLinear -> Reshape -> Transpose -> DequantizeLinear -> Conv

    Source:
        Measured: docs/performance.md.
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites each quantiser of a float convolution's output."""
        quantizers = (node for node in model.graph if node.op_type == QUANTIZE and _float_convolution(node) is not None)
        return rewrite_each(model, quantizers, _rewrite)


def _float_convolution(quantizer: ir.Node) -> ir.Node | None:
    """The convolution with constant float weights whose output is quantised, with or without a Relu between."""
    source = quantizer.inputs[0].producer() if quantizer.inputs[0] is not None else None
    if source is not None and source.op_type == "Relu" and source.inputs[0] is not None:
        source = source.inputs[0].producer()
    if source is None or source.op_type != "Conv":
        return None
    # The weights of an integer convolution are the output of a DequantizeLinear, not a constant.
    return source if constant_of(source.inputs[1]) is not None else None


def _reason_against(quantizer: ir.Node) -> str | None:
    convolution = _float_convolution(quantizer)
    assert convolution is not None
    weights, scale = constant_of(convolution.inputs[1]), constant_of(quantizer.inputs[1])
    assert weights is not None
    readers = [use.node for use in quantizer.outputs[0].uses()]
    if not readers or not all(_feeds_convolutions(reader) for reader in readers):
        return "something other than convolutions reads it"
    if weights.ndim != 4 or weights.shape[0] % _BLOCK:
        return f"its channels do not fill blocks of {_BLOCK}"
    if scale is None or scale.size != 1:
        return "its scale is not one constant"
    return None


def _feeds_convolutions(reader: ir.Node) -> bool:
    return reader.op_type == DEQUANTIZE and all(use.node.op_type == "Conv" for use in reader.outputs[0].uses())


def _rewrite(graph: ir.Graph, quantizer: ir.Node) -> str | None:
    reason = _reason_against(quantizer)
    if reason is not None:
        return reason
    write = NodeWriter(graph, str(quantizer.name))
    quantized = quantizer.outputs[0]
    last = write.add("Transpose", quantizer.inputs[0], suffix="channels_last", perm=_LAST)
    shape = write.add("Shape", last, suffix="shape")
    quantizer.replace_input_with(0, write.add("Flatten", last, suffix="flat", axis=3))
    before = list(write.nodes)
    whole = write.add("Reshape", quantized, shape, suffix="whole")
    first = write.add("Transpose", whole, suffix="channels_first", perm=_FIRST)
    first.type = quantized.type
    readers = [use for use in quantized.uses() if use.node is not whole.producer()]
    graph.insert_before(quantizer, before)
    graph.insert_after(quantizer, write.nodes[len(before) :])
    for reader in readers:
        reader.node.replace_input_with(reader.idx, first)
    quantized.shape = None
    return None
