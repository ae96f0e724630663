"""Names nodes and tensors after the modules they come from: `conv1_1`, not `node_Conv_71`."""

from __future__ import annotations

import ast
import logging
import re
from collections import Counter

import onnx_ir as ir

_log = logging.getLogger(__name__)

# torch.onnx writes the path of modules a node was traced in, outermost first, then the node's own name.
_SCOPES = "pkg.torch.onnx.name_scopes"
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def name_layers(model: ir.Model) -> tuple[ir.Model, bool]:
    """Gives each node that torch.onnx traced inside a module that module's name.

    A node with weights is called as its module (`conv1_1`), another as module and operator (`conv1_1/Relu`); the
    tensor a node makes is called module and operator. The position in an unnamed pair (`conv1_1.0`) is left out where
    the name stays unique. Inputs and outputs of the graph keep their names.
    """
    # Only what carries data: shape arithmetic is traced in whichever module asked for a shape first.
    scopes = {
        node: scope
        for node in model.graph
        if (scope := _scope(node)) and node.outputs[0].dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    }
    if not scopes:
        _log.debug("name_layers declines: no node carries %s with the module it was traced in", _SCOPES)
        return model, False
    shortened = {node: re.sub(r"\.\d+$", "", scope) for node, scope in scopes.items()}
    crowded = Counter((name, node.op_type) for node, name in shortened.items())
    taken: Counter[str] = Counter()
    outputs = set(model.graph.outputs)
    for node, scope in scopes.items():
        name = shortened[node] if crowded[shortened[node], node.op_type] == 1 else scope
        label = f"{name}/{node.op_type}"
        taken[label] += 1
        suffix = f"_{taken[label] - 1}" if taken[label] > 1 else ""
        node.name = (name if node.op_type in _WEIGHTED else label) + suffix
        if len(node.outputs) == 1 and node.outputs[0] not in outputs:
            node.outputs[0].name = label + suffix
    return model, True


def _scope(node: ir.Node) -> str | None:
    text = node.metadata_props.get(_SCOPES)
    if text is None:
        return None
    scopes: list[str] = ast.literal_eval(text)
    return scopes[-2] or None if len(scopes) >= 2 else None
