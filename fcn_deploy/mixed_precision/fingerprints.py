"""What two graphs compute alike, so that one need not compute again what the other has.

Two mixes of one net are the same up to the first layer in which they differ. Tensors are recognised by how they are
computed, not by their names: by a hash over the operators, attributes and constants they come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fcn_deploy.graph.model import serialize

Prints = dict[ir.Value, bytes]


def fingerprints(graph: ir.Graph) -> Prints:
    """Returns a hash for each tensor of a graph: equal for tensors of two graphs that are computed alike.

    Tensors that a branch or a loop takes part in have none, for it may read more than the inputs of its node.
    """
    prints: Prints = {value: _digest(b"input", str(value.name).encode()) for value in graph.inputs}
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


def frontier(model: ir.Model, done: Prints) -> dict[ir.Value, ir.Value]:
    """Finds where a graph leaves what another has computed already.

    The cut runs in front of a DequantizeLinear rather than behind it: integers take a quarter of the memory, and a
    runtime that fuses DequantizeLinear into what follows still can.

    Args:
        model: The graph that is to run.
        done: The fingerprints of the graph that has run.

    Returns:
        The last tensors that both compute, those of the first graph by those of the second. What makes the outputs is
        always left to run.
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
    """Returns the content of an ONNX file that computes a graph's outputs from `frontier`'s tensors.

    Args:
        model: The graph; it is consumed.
        cuts: From `frontier`. The file's inputs are called as `given` names them.
    """
    inputs = []
    for value, source in cuts.items():
        given_value = ir.Value(name=given(source), type=source.type, shape=value.shape)
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, given_value)
        inputs.append(given_value)
    model.graph.inputs.clear()
    model.graph.inputs.extend(inputs)
    return serialize(RemoveUnusedNodesPass()(model).model)


def given(value: ir.Value) -> str:
    """Returns what `cut` calls a tensor that another graph has computed."""
    return f"{value.name}/given"


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
