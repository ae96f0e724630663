"""Which tensors two graphs compute in the same way, so that one need not compute again what the other has computed.

Two candidates of one net are equal up to the first layer in which they differ. A tensor is recognised by how it is
computed, not by its name: by a hash of the operators, attributes and constants that it comes from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fcn_deploy.graph.model import serialize

Fingerprints = dict[ir.Value, bytes]


def fingerprints(graph: ir.Graph) -> Fingerprints:
    """Returns a hash for each tensor of a graph; tensors of two graphs with the same hash are equal.

    Tensors that come from a branch or a loop have no hash: its body may read more than the inputs of its node.
    """
    prints: Fingerprints = {value: _digest(b"input", str(value.name).encode()) for value in graph.inputs}
    for value in graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        prints[value] = _digest(b"constant", str(tensor.dtype).encode(), str(tensor.shape).encode(), tensor.tobytes())
    for node in graph:
        attributes = list(node.attributes.values())
        nested = any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for each in attributes)
        if nested or any(value is not None and value not in prints for value in node.inputs):
            continue
        computed = _digest(
            node.domain.encode(),
            node.op_type.encode(),
            *sorted(ir.to_proto(each).SerializeToString() for each in attributes),
            *(b"" if value is None else prints[value] for value in node.inputs),
        )
        for index, value in enumerate(node.outputs):
            prints[value] = _digest(computed, str(index).encode())
    return prints


def frontier(model: ir.Model, done: Fingerprints) -> dict[ir.Value, ir.Value]:
    """Finds the last tensors of a graph that another graph has computed already.

    The cut is before a DequantizeLinear, never after it: integers take a quarter of the memory, and a runtime can still
    fuse the DequantizeLinear with the nodes after it.

    Args:
        model: The graph that is to run.
        done: The fingerprints of the graph that has run.

    Returns:
        From tensors of the graph that is to run to the same tensors of the graph that has run. The nodes that make the
        outputs are always left to run.
    """
    known = {print_: value for value, print_ in done.items()}
    prints = fingerprints(model.graph)
    found: dict[ir.Value, ir.Value] = {}
    reached: set[ir.Value] = set()
    makers = (value.producer() for value in model.graph.outputs)
    waiting = [value for node in makers if node is not None for value in node.inputs]
    while waiting:
        value = waiting.pop()
        if value is None or value in reached or value.const_value is not None:
            continue
        reached.add(value)
        producer = value.producer()
        dequantizes = producer is not None and producer.op_type == "DequantizeLinear"
        if prints.get(value) in known and not dequantizes:
            found[value] = known[prints[value]]
        elif producer is not None:
            waiting.extend(producer.inputs)
    return found


def cut(model: ir.Model, cuts: Mapping[ir.Value, ir.Value]) -> bytes:
    """Returns the content of an ONNX file that computes a graph's outputs from the tensors of `frontier`.

    Args:
        model: The graph; it is changed, and not to be used again.
        cuts: From `frontier`. `input_name` names the inputs of the file.
    """
    inputs = []
    for value, source in cuts.items():
        # Graphs do not state the shapes of their own tensors; those of the source are inferred.
        shape = source.shape if value.shape is None else value.shape
        handed_over = ir.Value(name=input_name(source), type=source.type, shape=shape)
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, handed_over)
        inputs.append(handed_over)
    model.graph.inputs.clear()
    model.graph.inputs.extend(inputs)
    return serialize(RemoveUnusedNodesPass()(model).model)


def input_name(value: ir.Value) -> str:
    """Returns the name that `cut` gives to the input for a tensor that another graph has computed."""
    return f"{value.name}/computed"


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
