"""Weights that an ONNX model keeps in other files: they are embedded when the model is read, and written for a while.

A hash of the model's file alone would not notice that such a file was swapped, and the content of the model alone does
not say which folder the names of these files are relative to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from fcn_deploy.errors import InputError
from fcn_deploy.files import read_bytes, reading, writing
from fcn_deploy.graph.size_limit import check_weights_size

# In every reference to another file: a model without it has none, and need not be parsed to see that.
_KEY = b"location"
_SHOWN = 8
_DIGITS = 20  # of a length; a longer number is no length, and onnx says so


def read_with_weights(path: Path) -> bytes:
    """Returns the content of an ONNX file, with its weights.

    Args:
        path: The file. Names of other files in it are relative to its folder, which they may not leave.

    Returns:
        The content as it is if all weights are in it, else that of a model in which they are.

    Raises:
        InputError: A file cannot be read, leaves the folder, or the model would be larger than 2 GB; or it has sparse
            weights, in this file or another, which nothing here reads.
    """
    with reading(path):
        _check_size(path.stat().st_size, path)
    content = read_bytes(path)
    if _KEY not in content:
        return content
    try:
        model = onnx.load_model_from_string(content)
    except Exception:
        return content  # not a model; the reader that parses it says so
    external = [tensor for tensor in (*tensors_of(model.graph), *_of_functions(model)) if uses_external_data(tensor)]
    require_dense(model, str(path))  # of sparse ones, what reads them next would search the working directory
    if not external:
        return content
    _check_size(len(content) + sum(map(_stated_length, external)), path)
    size = len(content)
    for tensor in external:
        try:
            load_external_data_for_tensor(tensor, str(path.parent))
        except Exception as error:  # of several types: a missing file, a name outside the folder, a wrong length
            raise InputError(
                f"cannot read the weights of {path}, which it keeps in another file",
                got=str(error).strip().split("\n")[0],
                fix="copy the files of the model together",
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
        size += tensor.ByteSize()
        _check_size(size, path)  # again, because the lengths may be left out
    return bytes(model.SerializeToString())


def _check_size(size: int, path: Path) -> None:
    check_weights_size(size, str(path), "use a smaller net, such as one of fewer channels")


def _stated_length(tensor: onnx.TensorProto) -> int:
    """How many bytes of another file a tensor says to be; 0 if it does not say."""
    stated = [entry.value for entry in tensor.external_data if entry.key == "length"]
    return sum(int(length) for length in stated if length.isdecimal() and len(length) < _DIGITS)


def write_with_external_weights(model: ir.Model, path: Path) -> None:
    """Writes an ONNX file and beside it, in a file of their own, its weights, without a copy of them in memory.

    Args:
        model: Any model; it is not changed.
        path: The file to write.

    Raises:
        InputError: A file cannot be written.
    """
    with writing(path):
        ir.save(model, path, external_data=f"{path.name}.weights")


def require_dense(model: onnx.ModelProto, what: str) -> None:
    """Checks that no constant of a model is a sparse tensor, which nothing here reads.

    Raises:
        InputError: One is.
    """
    sparse = [tensor.values.name for tensor in (*_sparse_of(model.graph), *_sparse_of_functions(model))]
    if sparse:
        raise InputError(
            f"{what} keeps weights as sparse tensors",
            got=", ".join(sparse[:_SHOWN]) + (f" and {len(sparse) - _SHOWN} more" if len(sparse) > _SHOWN else ""),
            expected="dense weights",
            fix="make them dense with the tool that made the model",
        )


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yields the constants of a graph, those in the attributes of its nodes and in inner graphs too."""
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _sparse_of(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    yield from graph.sparse_initializer
    yield from _sparse_of_nodes(graph.node)


def _sparse_of_functions(model: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    for function in model.functions:
        yield from _sparse_of_nodes(function.node)


def _sparse_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.SparseTensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _sparse_of(inner)


def _of_functions(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from tensors_of(inner)
