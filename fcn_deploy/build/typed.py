"""Typed graphs: the ONNX model a strongly typed TensorRT builder parses, in which every tensor's type is decided."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from fcn_deploy import passes
from fcn_deploy.build.engine import BuildConfig
from fcn_deploy.errors import UsageError
from fcn_deploy.graph import exported_spec, parse, serialize
from fcn_deploy.quant.ranges import Ranges
from fcn_deploy.sidecar import ENGINE_KEY, Precision

Base = Literal["fp16", "fp32"]


@dataclass(frozen=True, eq=False)
class TypedGraph:
    """A graph for a TensorRT builder.

    Attributes:
        data: Content of an ONNX file, to be parsed into a strongly typed network.
        precision: What was asked of each layer; `achieved` is `unknown`, for nothing has been built yet.
        notes: Sentences for the user: what stayed FP32, what was not checked.
    """

    data: bytes
    precision: Precision
    notes: tuple[str, ...] = ()


def typed_graph(
    model: bytes,
    config: BuildConfig,
    ranges: Ranges | None = None,
    base: Base = "fp16",
    kept: Collection[str] | None = None,
) -> TypedGraph:
    """Makes the typed graph of an exported model."""
    graph_model = parse(model)
    spec = exported_spec(graph_model)
    if config.precision != "fp32":
        raise UsageError("only FP32 graphs are made", got=config.precision, expected="fp32")
    layers = [str(node.name) for node in graph_model.graph if node.op_type in ("Conv", "ConvTranspose")]
    if config.io == "image":
        graph_model = passes.run(graph_model, passes.image_io(spec))
    graph_model = passes.run(graph_model, passes.FINAL)
    graph_model.metadata_props[ENGINE_KEY] = "fp32-fp32"
    return TypedGraph(serialize(graph_model), Precision("fp32", "fp32", layers=dict.fromkeys(layers, "fp32")))
