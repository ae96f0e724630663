"""Makes the FP16 tensors of a graph float32: an exported model is float, and each engine has its own precision."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

_FP32, _FP16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
# Attributes that hold the type of an output.
_TYPES = ("to", "dtype", "output_dtype")


class ToFp32(Rewrite):
    """Makes FP16 tensors float32, those of inner graphs too.

    What:
        Constants keep their values, which float32 holds exactly. Casts to FP16 become casts to float32. Tensors keep
        their names.

    Why:
        What calibrates and quantises expects float32, and an engine that is said to be FP32 must compute in float32.
        An FP16 engine gets its types when it is built.

    Before -> after:
        image (fp16) -> Conv (fp16) -> logits (fp16)
        image (fp32) -> Conv (fp32) -> logits (fp32)

    Source:
        https://onnx.ai/onnx/operators/onnx__Cast.html
    """

    # The tensors are not rounded to 11 bits any more; what that does to the output depends on the net.
    tolerance: ClassVar[float | None] = None

    def call(self, model: ir.Model) -> RewriteResult:
        """Retypes the graph in place."""
        changed = sum(map(_retype, _values(model.graph)))
        for node in model.graph.all_nodes():
            for attribute in list(node.attributes.values()):
                changed += _retype_attribute(node, attribute)
        if not changed:
            return RewriteResult(model, False, (Declined("no tensor is FP16"),))
        return RewriteResult(model, True)


def _values(graph: ir.Graph) -> set[ir.Value]:
    graphs = {graph, *graph.subgraphs()}
    nodes = graph.all_nodes()
    stated = {value for each in graphs for value in (*each.inputs, *each.initializers.values())}
    return stated | {value for node in nodes for value in node.outputs}


def _retype(value: ir.Value) -> bool:
    if value.dtype != _FP16:
        return False
    value.type = ir.TensorType(_FP32)
    if value.const_value is not None:
        value.const_value = _widened(value.const_value)
    return True


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(np.asarray(tensor.numpy(), np.float32), name=tensor.name)


def _retype_attribute(node: ir.Node, attribute: ir.Attr) -> bool:
    if attribute.type == ir.AttributeType.INT and attribute.name in _TYPES and attribute.as_int() == _FP16:
        node.attributes[attribute.name] = ir.AttrInt64(attribute.name, _FP32)
    elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _FP16:
        node.attributes[attribute.name] = ir.AttrTensor(attribute.name, _widened(attribute.as_tensor()))
    else:
        return False
    return True
