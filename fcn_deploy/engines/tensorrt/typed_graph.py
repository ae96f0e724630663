"""Typed graphs: the ONNX model a strongly typed TensorRT builder parses, in which every tensor's type is decided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, SIMULATED, Precision
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.engines.check_logits_size import check_sizes
from fcn_deploy.engines.engine import NO_MEANS, BuildConfig, brings_scales, check_ranges, means_for
from fcn_deploy.engines.prequantized import given_precision
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import sha256_bytes
from fcn_deploy.graph.model import exported_spec, parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.simulate_fp16 import widen_half
from fcn_deploy.quantization.fp16_range import LARGEST, MARGIN, SMALLEST, Fp16Audit, audit_fp16_range
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.prequantized import check_fp16_scales
from fcn_deploy.quantization.selection import int8_layers
from fcn_deploy.quantization.tensorrt import TensorRtScheme, emit_tensorrt
from fcn_deploy.quantization.tensorrt_lint import lint
from fcn_deploy.quantization.tensors import data_input
from fcn_deploy.runtime import Backend
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

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
) -> TypedGraph:
    """Makes the typed graph of an exported model.

    Args:
        model: Content of an ONNX file as `export` writes it, or with Q/DQ of its own.
        config: Precision, input and output, and how ranges are chosen; the target CPU has no say here.
        ranges: What calibration saw: needed for INT8 of a model without Q/DQ; for FP16, what it is audited by.
        base: What an INT8 graph computes in where it is not quantised. An FP32 graph is FP32, an FP16 graph FP16.

    Returns:
        The graph. Its input and output are the contract's, of either kind of `config.io`.

    Raises:
        InputError: The model is not an exported net, a layer to quantise is none of it, the ranges are not the model's,
            the graph cannot be made FP16, or TensorRT would refuse it.
        PrecisionError: The model has Q/DQ, and no layer that is INT8.
        UsageError: INT8 without ranges, FP16 on a base of FP32, or an unknown base; for a model with Q/DQ ranges,
            layers to quantise, another precision, or a base of FP16 that would round its scales.
    """
    base = _checked_base(config, base)
    graph_model = parse(model)
    spec = exported_spec(graph_model, stated=config.spec)
    given = brings_scales(graph_model, config, ranges)
    if ranges is not None:
        check_ranges(ranges, sha256_bytes(model))
    if given:
        check_sizes(model)
        graph_model = _with_given_scales(graph_model, config, base)
    scheme = TensorRtScheme(base == "fp16", config.weight_rounding or "nearest")
    if config.precision == "int8" and ranges is not None:
        _quantize(graph_model, config, ranges, scheme)
    images = config.io == "image"
    audit = None
    if base == "fp16":
        audit = audit_fp16_range(graph_model.graph, None if ranges is None else ranges.histograms)
        graph_model = pipelines.run(
            graph_model, pipelines.half(spec, audit.keep, images=images, quantized=config.precision == "int8")
        )
    elif images:
        graph_model = pipelines.run(graph_model, pipelines.image_io(spec))
    graph_model = pipelines.run(graph_model, pipelines.FINAL)
    graph_model.metadata_props[ENGINE_KEY] = f"{config.precision}-{base}"
    graph_model.metadata_props.setdefault(METADATA_KEY, spec.dumps())
    _require_clean(graph_model)
    if given:
        precision = given_precision(graph_model, base)
    else:
        method = config.method if config.precision == "int8" else None
        precision = Precision(config.precision, base, method, _layers(graph_model.graph))
    if config.precision == "int8" and ranges is not None:
        corrected = bool(means_for(config, ranges))
        precision = replace(precision, bias_corrected=corrected, weight_rounding=scheme.rounding)
    if audit is not None:
        precision = replace(precision, audited=audit.audited, kept_fp32=(*audit.tensors, *audit.weights))
    return TypedGraph(serialize(graph_model), precision, _notes(config, ranges, audit))


def simulate(graph: TypedGraph, *, threads: int | None = None) -> Backend:
    """Opens a typed graph on ONNX Runtime's CPU provider, computing in float32 what FP16 and INT8 would give.

    Q/DQ is computed in float: on a CPU without VNNI the integer kernels saturate. What FP16 nodes make is rounded to
    FP16, infinity included. Not reproduced: in what order and precision a GPU adds up within a node, here float32, and
    which nodes a builder fuses, whose results in between it does not round. Of speed it says nothing.

    Args:
        graph: Of any precision.
        threads: CPU threads; ONNX Runtime's default where None.

    Raises:
        ArtifactError: ONNX Runtime cannot load it.
    """
    return OnnxRuntimeBackend(simulated(graph), threads=threads)


def simulated(graph: TypedGraph) -> bytes:
    """Returns the content of the ONNX file by which ONNX Runtime simulates a typed graph; see `simulate`."""
    model = pipelines.run(parse(graph.data), (widen_half, *pipelines.FINAL))
    model.metadata_props[ENGINE_KEY] = f"{graph.precision.requested}{SIMULATED}"
    return serialize(model)


def _checked_base(config: BuildConfig, base: Base) -> Base:
    if base not in ("fp16", "fp32"):
        raise UsageError("unknown base precision", got=repr(base), expected="fp16 or fp32")
    if config.precision == "fp16" and base == "fp32":
        raise UsageError("an FP16 graph on a base of FP32", fix="leave the base out, or ask for fp32")
    return "fp32" if config.precision == "fp32" else base


def _quantize(model: ir.Model, config: BuildConfig, ranges: Ranges, scheme: TensorRtScheme) -> None:
    layers = int8_layers(model.graph, config.int8_layers)
    means = means_for(config, ranges)
    emit_tensorrt(model, choose(ranges.histograms, config.method, symmetric=True), layers, scheme, means)


def _with_given_scales(model: ir.Model, config: BuildConfig, base: Base) -> ir.Model:
    if config.int8_layers is not None:
        raise UsageError("layers to quantise in a graph that brings its own Q/DQ", got=", ".join(config.int8_layers))
    model = pipelines.run(model, pipelines.GIVEN)
    _require_clean(model)  # first: what is wrong with the graph is wrong on any base
    if base == "fp16":
        check_fp16_scales(model.graph)
    return model


def _layers(graph: ir.Graph) -> dict[str, str]:
    """The precision the graph asks for each convolution."""
    names = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16"}
    layers: dict[str, str] = {}
    for node in graph:
        if node.op_type in ("Conv", "ConvTranspose"):
            producer, weights = data_input(node).producer(), node.inputs[1]
            assert weights is not None
            dtype = weights.dtype or ir.DataType.FLOAT  # what FP16 needs is typed; an FP32 graph may leave it out
            quantized = producer is not None and producer.op_type == "DequantizeLinear"
            layers[str(node.name)] = "int8" if quantized else names.get(dtype, dtype.name.lower())
    return layers


def _require_clean(model: ir.Model) -> None:
    findings = lint(model)
    if findings:
        raise InputError(
            "TensorRT would refuse the graph of this net",
            got="; ".join(map(str, findings)),
            fix=findings[0].fix,
        )


def _notes(config: BuildConfig, ranges: Ranges | None, audit: Fp16Audit | None) -> tuple[str, ...]:
    notes = []
    if ranges is not None and ranges.data.random:
        notes.append("The ranges were observed on noise: the engine is for timing, not for use.")
    if config.precision == "int8" and config.bias_correction and ranges is not None and not ranges.means:
        notes.append(NO_MEANS)
    if audit is None:
        return tuple(notes)
    if not audit.audited:
        notes.append("FP16 was not audited: without calibration nobody knows whether every tensor fits its range.")
    if audit.tensors:
        notes.append(
            f"Stays FP32, for calibration saw values outside FP16's range ({SMALLEST:.2g} to {LARGEST:g}, less a "
            f"factor of {MARGIN:g}): {', '.join(audit.tensors)}."
        )
    if audit.weights:
        notes.append(f"Stays FP32, for its constants are outside FP16's range: {', '.join(audit.weights)}.")
    return tuple(notes)
