"""Gives the output's dynamic dimensions the names of the input's."""

from __future__ import annotations

import ast
import logging
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, count

import onnx_ir as ir

_log = logging.getLogger(__name__)


def name_dims(model: ir.Model) -> tuple[ir.Model, bool]:
    """Names batch, height and width of the output as those of the input.

    Shape inference describes the output's height as the minimum of what each crop leaves; that this is the input's
    height is known from the net's geometry and checked by running the model. Dimensions that are numbers stay.
    """
    source, target = model.graph.inputs[0].shape, model.graph.outputs[0].shape
    if source is None or target is None or source.rank() != 4 or target.rank() != 4:
        _log.debug("name_dims declines: input and output are not both of rank 4")
        return model, False
    changed = False
    for axis in (0, 2, 3):
        wanted, found = source[axis], target[axis]
        if isinstance(wanted, ir.SymbolicDim) and isinstance(found, ir.SymbolicDim) and wanted != found:
            target[axis] = wanted
            changed = True
    if not changed:
        _log.debug("name_dims: the output's dimensions are named as the input's")
    return model, changed


# torch.onnx writes the path of modules a node was traced in, outermost first, then the node's own name.
_SCOPES = "pkg.torch.onnx.name_scopes"


_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


_WEIGHT = ".weight"


def name_layers(model: ir.Model, root: str = "") -> tuple[ir.Model, bool]:
    """Gives each node that torch.onnx traced inside a module that module's name.

    A node with weights is called as their module (`conv1_1`), another as module and operator (`conv1_1/Relu`); the
    tensor a node makes is called module and operator. The position in an unnamed pair (`conv1_1.0`) is left out where
    the name stays unique; a module that runs twice has its nodes numbered. Inputs and outputs of the graph keep their
    names.

    Args:
        model: As torch.onnx wrote it.
        root: A module whose path goes without saying: `net` makes `net.conv1_1` a `conv1_1`.
    """
    # Only what carries data: shape arithmetic is traced in whichever module asked for a shape first.
    paths = {
        node: path
        for node in model.graph
        if node.outputs[0].dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16) and (path := _path(node, root))
    }
    if not paths:
        _log.debug("name_layers declines: no node carries %s with the module it was traced in", _SCOPES)
        return model, False
    shortened = {node: re.sub(r"\.\d+$", "", path) for node, path in paths.items()}
    crowded = Counter((name, node.op_type) for node, name in shortened.items())
    taken = {str(node.name) for node in model.graph if node not in paths}
    outputs = set(model.graph.outputs)
    for node, path in paths.items():
        name = shortened[node] if crowded[shortened[node], node.op_type] == 1 else path
        label = f"{name}/{node.op_type}"
        called = name if node.op_type in _WEIGHTED else label
        suffix = next(suffix for suffix in _suffixes() if called + suffix not in taken)
        node.name = called + suffix
        taken.add(node.name)
        if len(node.outputs) == 1 and node.outputs[0] not in outputs:
            node.outputs[0].name = label + suffix
    return model, True


def _suffixes() -> Iterator[str]:
    return chain([""], (f"_{number}" for number in count(1)))


def _path(node: ir.Node, root: str) -> str | None:
    """The module a node comes from, by its weights or else by where it was traced; None if torch did not say."""
    text = node.metadata_props.get(_SCOPES)
    if text is None:
        return None
    scopes: list[str] = ast.literal_eval(text)
    path = scopes[-2] if len(scopes) >= 2 else ""
    weights = node.inputs[1] if node.op_type in _WEIGHTED and len(node.inputs) > 1 else None
    # A convolution that took in its batch normalisation was traced in that; its weights still have its own name.
    if weights is not None and weights.const_value is not None and str(weights.name).endswith(_WEIGHT):
        path = str(weights.name).removesuffix(_WEIGHT)
    return "" if path == root else path.removeprefix(f"{root}.")
