"""Rewrites PReLU as operators that ONNX Runtime has fast kernels for."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import NodeWriter, constant_of, replace_node
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult, rewrite_each


class RewritePRelu(Rewrite):
    """Replaces PRelu of constant slopes.

    What:
        One slope for all channels is LeakyRelu. Slopes of at most 1 are the maximum of the map and of its product with
        the slopes, those of at least 1 the minimum.

    Why:
        ONNX Runtime's PRelu runs in one thread, element by element. LeakyRelu becomes part of the convolution before
        it, and has an integer kernel; products and maxima have vector kernels.

    Before -> after:
        Conv -> PRelu
        Conv -> LeakyRelu, or Conv -> Mul -> Max

    Source:
        He et al. 2015, https://arxiv.org/abs/1502.01852.
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites the nodes one by one."""
        return rewrite_each(model, (node for node in model.graph if node.op_type == "PRelu"), _rewrite)


def _rewrite(graph: ir.Graph, node: ir.Node) -> str | None:
    slopes = constant_of(node.inputs[1])
    if slopes is None or slopes.dtype != np.float32:
        return "its slopes are not constant float32"
    write = NodeWriter(graph, str(node.name))
    first = slopes.flat[0] if slopes.size else np.float32(0)
    if slopes.size and np.isfinite(first) and (slopes == first).all():
        write.add("LeakyRelu", node.inputs[0], alpha=float(first))
    elif (slopes <= 1).all() or (slopes >= 1).all():
        product = write.add("Mul", node.inputs[0], node.inputs[1])
        write.add("Max" if (slopes <= 1).all() else "Min", node.inputs[0], product)
    else:
        return "some of its slopes are above 1 and some below"
    replace_node(graph, node, write.nodes)
    return None
