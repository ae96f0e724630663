"""Exported models: read, checked for being one that `export` writes, and passed on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx.external_data_helper import uses_external_data

from fcn_deploy.artifacts.sidecar import ENGINE_KEY
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import as_path, sha256_bytes, write_bytes
from fcn_deploy.graph.external_data import read_with_weights, require_dense, tensors_of
from fcn_deploy.graph.size_limit import check_weights_size

_SMALLER = "use a smaller net, such as one of fewer channels"


def parse(data: bytes, what: str = "the model") -> ir.Model:
    """Reads the content of an ONNX file.

    Args:
        data: The content.
        what: What to call it in an error.

    Raises:
        InputError: It is not an ONNX model.
    """
    try:
        proto = onnx.load_model_from_string(data)
        _require_weights(proto, what)
        onnx.checker.check_model(data)  # of `proto` it would make content once more
        model = ir.from_proto(proto)
    except InputError:
        raise
    except Exception as error:
        # Damaged files bring out nearly every type of exception there is; each means that this cannot be read.
        raise InputError(f"{what} is not an ONNX model", got=str(error).strip().split("\n")[0]) from error
    if not len(model.graph):
        raise InputError(f"{what} is not an ONNX model", got="no nodes")
    return model


def _require_weights(proto: onnx.ModelProto, what: str) -> None:
    require_dense(proto, what)
    if any(uses_external_data(tensor) for tensor in tensors_of(proto.graph)):
        raise InputError(
            f"{what} keeps weights in another file, which its content does not say where to find",
            fix="read the model from its file: load_exported",
        )


def serialize(model: ir.Model, what: str = "the model", fix: str | None = None) -> bytes:
    """Returns the content of the ONNX file of a model.

    Args:
        model: Any model.
        what: What to call it in an error.
        fix: What the user can do if it is too large; None for a smaller net.

    Raises:
        InputError: Its weights are too large for one file.
    """
    check_weights_size(sum(tensor.nbytes for tensor in _weights(model)), what, fix or _SMALLER)
    return bytes(ir.to_proto(model).SerializeToString())


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """The constants of a model: those of its graph, and those in attributes of nodes."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            yield value.const_value
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()


def exported_spec(model: ir.Model, what: str = "the model", stated: ModelSpec | None = None) -> ModelSpec:
    """Checks that a model is one that `export` writes, or a tool made of one, and returns its spec.

    Args:
        model: Any model.
        what: What to call it in an error.
        stated: The spec of the model it was made of, for a tool may have left the metadata out.

    Raises:
        InputError: It has other inputs or outputs than float32 `image` and `logits`, no spec in its metadata and none
            was stated, the stated one is of another number of classes, or it is an engine.
        UsageError: It has a spec, and that is another than the one stated.
    """
    signature = [(value.name, value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)]
    if signature != [("image", ir.DataType.FLOAT), ("logits", ir.DataType.FLOAT)]:
        raise InputError(
            f"{what} is not an exported segmentation net",
            got=", ".join(f"{name} {dtype}" for name, dtype in signature) or "no inputs and outputs",
            expected="input image and output logits, float32",
            fix="make it with fcn-deploy export",
        )
    if ENGINE_KEY in model.metadata_props:
        raise InputError(
            f"{what} is an engine",
            expected="the exported model it was built from",
            fix="make one with fcn-deploy export",
        )
    if METADATA_KEY not in model.metadata_props and stated is not None:
        return _fitting(stated, model.graph.outputs[0], what)
    if METADATA_KEY not in model.metadata_props:
        raise InputError(
            f"{what} does not say how its images are normalised and what its classes are",
            expected=f"{METADATA_KEY} in its metadata",
            fix="make it with fcn-deploy export; or, if another tool made it of an exported model, name that one: "
            "fcn-deploy build-engine --spec-from",
        )
    spec = ModelSpec.loads(model.metadata_props[METADATA_KEY])
    if stated not in (None, spec):
        raise UsageError(f"{what} has a spec of its own, which is another", fix="leave out `spec_from`")
    return spec


def _fitting(spec: ModelSpec, logits: ir.Value, what: str) -> ModelSpec:
    channels = logits.shape[1] if logits.shape is not None and logits.shape.rank() == 4 else None
    if channels != spec.channels:
        raise InputError(
            f"the spec is not that of {what}",
            got=f"{spec.num_classes} classes for logits {logits.shape}",
            expected="logits [N, C, H, W] with a channel for each class, or one for a binary net",
            fix="name the exported model that it was made of",
        )
    return spec


@dataclass(frozen=True, eq=False, repr=False)
class ExportedModel:
    """A model as `export` writes it: read and checked once, then handed from room to room.

    Attributes:
        content: Of its ONNX file.
        spec: What the net is.
        sha256: Of the content, in hex; ranges and sidecars know the model by it.
        error: Largest difference from what it was made of, over its range, as the comparison that followed found it;
            None for a model that was read from a file.
        graph: To be read. What rewrites it works on a `copy`.
    """

    content: bytes
    spec: ModelSpec
    sha256: str
    _model: ir.Model
    error: float | None = None

    @classmethod
    def parse(cls, content: bytes, what: str = "the model", spec: ModelSpec | None = None) -> ExportedModel:
        """Reads the content of an ONNX file.

        Args:
            content: Of the file.
            what: What to call it in an error.
            spec: Of the model that a tool made this one of, and left out; else None.

        Raises:
            InputError: It is not an ONNX model, or not one that `export` writes.
            UsageError: It has a spec, and that is another than `spec`.
        """
        model = parse(content, what)
        return cls(content, exported_spec(model, what, spec), sha256_bytes(content), model)

    def __repr__(self) -> str:
        return f"ExportedModel({self.spec.variant}, {self.spec.num_classes} classes, sha256 {self.sha256[:12]}...)"

    @property
    def graph(self) -> ir.Graph:
        """The graph, to be read."""
        return self._model.graph

    def copy(self) -> ir.Model:
        """Returns a model that may be rewritten; it shares the constants of this one."""
        return self._model.clone()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ONNX file, atomically.

        Raises:
            InputError: The path cannot be written.
        """
        write_bytes(as_path(path), self.content)


def load_exported(path: str | os.PathLike[str], *, spec: ModelSpec | None = None) -> ExportedModel:
    """Reads an exported ONNX file.

    Args:
        path: The file.
        spec: Of the model that a tool made this one of, and left out; else None.

    Returns:
        The model. Weights that the file keeps in other files are embedded, so that hash and engines have them.

    Raises:
        InputError: It cannot be read, or is not an exported model.
        UsageError: It has a spec, and that is another than `spec`.
    """
    return ExportedModel.parse(read_with_weights(as_path(path)), str(path), spec)
