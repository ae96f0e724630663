"""Repairs what ONNX Runtime takes in a model and the checker of ONNX does not, as other tools leave it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir

# An input without a shape is taken for an image; what it cannot be is said later, by its type and its readers.
_RANK_OF_IMAGES = 4
# Of the operators of ONNX itself, which usually have none.
OTHER_NAME = "ai.onnx"


def repaired(content: bytes) -> bytes | None:
    """Puts the nodes of a model in order, gives its inputs and outputs the shapes that they lack, and renames a domain.

    Tools that add an output to look at, or a Cast at the end of the list of nodes, leave models like that.

    Args:
        content: Of an ONNX file that the checker refuses, or that calls ONNX's own operators by another name.

    Returns:
        The content of the repaired model; None if it has none of these faults, or more than these.
    """
    try:
        proto = onnx.load_model_from_string(content)
        changed = _rename_domain(proto) | _sort(proto) | _state_shapes(proto)  # inference needs the order
    except Exception:  # what is damaged otherwise; the reader says how
        return None
    return bytes(proto.SerializeToString()) if changed else None


def _rename_domain(proto: onnx.ModelProto) -> bool:
    imports = [each for each in proto.opset_import if each.domain == OTHER_NAME]
    nodes = [node for node in proto.graph.node if node.domain == OTHER_NAME]
    known = any(not each.domain for each in proto.opset_import)
    for each in imports:
        if known:
            proto.opset_import.remove(each)
        else:
            each.domain = ""
    for node in nodes:
        node.domain = ""
    return bool(imports or nodes)


def _state_shapes(proto: onnx.ModelProto) -> bool:
    graph = proto.graph
    inputs = list(_without_shape(graph.input))
    for value in inputs:
        for _ in range(_RANK_OF_IMAGES):
            value.type.tensor_type.shape.dim.add()
    outputs = list(_without_shape(graph.output))
    if outputs:
        inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(proto).graph.output}
        for value in outputs:
            value.CopyFrom(inferred[value.name])
    return bool(inputs or outputs)


def _without_shape(values: Iterable[onnx.ValueInfoProto]) -> Iterator[onnx.ValueInfoProto]:
    for value in values:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            yield value


def _sort(proto: onnx.ModelProto) -> bool:
    before = [node.output[:] for node in proto.graph.node]
    model = ir.from_proto(proto)
    model.graph.sort()
    after = [[value.name or "" for value in node.outputs] for node in model.graph]
    if before == after:
        return False
    proto.CopyFrom(ir.to_proto(model))
    return True
