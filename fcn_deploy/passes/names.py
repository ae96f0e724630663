"""Names that people read: layers named after the net's modules, and the output's dimensions after the input's."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, count
from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.graph.edit import optional_input
from fcn_deploy.graph.ops import WEIGHTED
from fcn_deploy.passes.rewrite import Declined, Rewrite, RewriteResult

# torch.onnx writes the path of the modules a node was traced in, outermost first, then the node's own name.
_SCOPES = "pkg.torch.onnx.name_scopes"
_WEIGHT = ".weight"
_RESERVED = ("image", "logits", "labels")


class NameLayers(Rewrite):
    """Gives each node that torch.onnx traced inside a module that module's name.

    What:
        A node with weights is named after its module (`conv1_1`), another after module and operator (`conv1_1/Relu`);
        its output is named after module and operator. The position in an unnamed pair (`conv1_1.0`) is left out if the
        name stays unique; the nodes of a module that runs twice are numbered. Inputs and outputs of the graph keep
        their names.

    Why:
        Ranges, precision maps, sidecars and reports name layers; the net's author knows its modules.

    Before -> after:
        node_conv2d_3 -> node_relu_3
        conv1_1 -> conv1_1/Relu

    Source:
        Metadata that torch.onnx.export(dynamo=True) writes: pkg.torch.onnx.name_scopes.

    Args:
        root: A module whose path is left out: with `net`, `net.conv1_1` becomes `conv1_1`.
    """

    tolerance: ClassVar[float | None] = 0.0

    def __init__(self, root: str = "") -> None:
        self._root = root

    def call(self, model: ir.Model) -> RewriteResult:
        """Names the nodes of a model as torch.onnx wrote it."""
        # Only nodes that make data: shape arithmetic is traced in whichever module asked for a shape first.
        paths = {
            node: path
            for node in model.graph
            if node.outputs[0].dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16) and (path := _path(node, self._root))
        }
        if not paths:
            reason = f"no node says in {_SCOPES} which module it was traced in"
            return RewriteResult(model, False, (Declined(reason),))
        shortened = {node: re.sub(r"\.\d+$", "", path) for node, path in paths.items()}
        crowded = Counter((name, node.op_type) for node, name in shortened.items())
        taken = {str(node.name) for node in model.graph if node not in paths}
        outputs = set(model.graph.outputs)
        for node, path in paths.items():
            name = shortened[node] if crowded[shortened[node], node.op_type] == 1 else path
            label = f"{name}/{node.op_type}"
            called = name if node.op_type in WEIGHTED else label
            suffix = next(suffix for suffix in _suffixes() if called + suffix not in taken)
            node.name = called + suffix
            taken.add(node.name)
            if len(node.outputs) == 1 and node.outputs[0] not in outputs:
                node.outputs[0].name = label + suffix
        return RewriteResult(model, True)


class NameDims(Rewrite):
    """Names batch, height and width of the output like those of the input.

    What:
        Replaces the names of the first output's dynamic dimensions; dimensions that are numbers stay.

    Why:
        Shape inference describes the output's height as the minimum of what each crop leaves. That it is the input's
        height is known from the net's geometry and checked by running the model.

    Before -> after:
        logits [batch, 21, min(height, 32*...), ...]
        logits [batch, 21, height, width]

    Source:
        The net's geometry; the export runs the model at several sizes to check it.
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Names the dimensions of the first output."""
        source, target = model.graph.inputs[0].shape, model.graph.outputs[0].shape
        if source is None or target is None or source.rank() != 4 or target.rank() != 4:
            return RewriteResult(
                model, False, (Declined(f"input {source} and output {target} are not both of rank 4"),)
            )
        modified = False
        for axis in (0, 2, 3):
            wanted, found = source[axis], target[axis]
            if isinstance(wanted, ir.SymbolicDim) and isinstance(found, ir.SymbolicDim) and wanted != found:
                target[axis] = wanted
                modified = True
        return RewriteResult(model, modified)


class UniqueNames(Rewrite):
    """Gives each node a name of its own.

    What:
        Nodes without a name get that of their output, and of several with one name the later ones a number.

    Why:
        Ranges, precision maps, sidecars and reports name layers; other tools leave names out.

    Before -> after:
        Conv "" -> score
        Conv "score" -> score

    Source:
        ONNX does not require names: https://onnx.ai/onnx/repo-docs/IR.html, "Nodes".
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Names the nodes of the outer graph."""
        taken: set[str] = set()
        modified = False
        for node in model.graph:
            wanted = node.name or f"{node.outputs[0].name}"
            name = next(wanted + suffix for suffix in _suffixes() if wanted + suffix not in taken)
            modified |= name != node.name
            node.name = name
            taken.add(name)
        return RewriteResult(model, modified)


class ReserveNames(Rewrite):
    """Renames what has a name that an exported model or an engine gives to something else.

    What:
        Nodes and tensors called `image`, `logits` or `labels`, or whose names begin with one of these and a slash, get
        `net/` before their names.

    Why:
        In a graph that another tool wrote these may be the names of anything, and two nodes of one name are an error.

    Before -> after:
        data -> Conv (image/Cast) -> labels -> Sigmoid -> prediction
        data -> Conv (net/image/Cast) -> net/labels -> Sigmoid -> prediction

    Source:
        CONTRACTS, "Tensors"; `ImageInput` and `LabelOutput`.
    """

    tolerance: ClassVar[float | None] = 0.0

    def call(self, model: ir.Model) -> RewriteResult:
        """Renames nodes and tensors, inputs and outputs too."""
        graph = model.graph
        tensors = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
        modified = False
        for named in (list(graph), tensors):
            taken = {each.name for each in named}
            for each in named:
                if each.name and each.name.partition("/")[0] in _RESERVED:
                    wanted = f"net/{each.name}"
                    each.name = next(wanted + suffix for suffix in _suffixes() if wanted + suffix not in taken)
                    taken.add(each.name)
                    modified = True
        return RewriteResult(model, modified)


def _suffixes() -> Iterator[str]:
    return chain([""], (f"_{number}" for number in count(1)))


def _path(node: ir.Node, root: str) -> str | None:
    """The module a node comes from, by its weights or else by where it was traced; None if torch did not say."""
    text = node.metadata_props.get(_SCOPES)
    if text is None:
        return None
    scopes: list[str] = ast.literal_eval(text)
    path = scopes[-2] if len(scopes) >= 2 else ""
    weights = optional_input(node, 1) if node.op_type in WEIGHTED else None
    # A convolution with a folded batch normalisation was traced in that module; its weights still have its own name.
    if weights is not None and weights.const_value is not None and str(weights.name).endswith(_WEIGHT):
        path = str(weights.name).removesuffix(_WEIGHT)
    return "" if path == root else path.removeprefix(f"{root}.")
