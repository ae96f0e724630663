"""Typed graphs: the ONNX model that a strongly typed TensorRT builder parses, with the type of every tensor decided."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import ENGINE_KEY
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.engines.config import Base, BuildConfig, require_base
from fcn_deploy.engines.int8_layers import layers_to_quantize
from fcn_deploy.engines.logits_size import check_logits_size
from fcn_deploy.engines.prequantized import check_scales, prequantized_precision
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.model import ExportedModel, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.quantization.fp16_range import LARGEST, MARGIN, SMALLEST, Fp16Audit, audit_fp16_range
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.prequantized import check_fp16_scales
from fcn_deploy.quantization.tensorrt import TensorRtScheme, emit_tensorrt
from fcn_deploy.quantization.tensorrt_lint import lint
from fcn_deploy.quantization.tensors import data_input


@dataclass(frozen=True, eq=False)
class TypedGraph:
    """A graph for a TensorRT builder.

    Attributes:
        data: Content of an ONNX file, to be parsed into a strongly typed network.
        precision: What was asked of each layer; `achieved` is `unknown`, as nothing has been built yet.
        notes: Sentences for the user: what stayed FP32, what was not checked.
    """

    data: bytes
    precision: Precision
    notes: tuple[str, ...] = ()


def typed_graph(
    model: ExportedModel,
    config: BuildConfig,
    ranges: Ranges | None = None,
    base: Base = "fp16",
) -> TypedGraph:
    """Makes the typed graph of an exported model.

    Args:
        model: As `export` writes it, or prequantized.
        config: Precision, input and output, and how ranges are chosen; the target CPU is ignored.
        ranges: What calibration saw: needed for INT8 of a model without Q/DQ; FP16 is audited by them.
        base: What an INT8 graph computes in where it is not quantised. An FP32 graph is FP32, an FP16 graph FP16.

    Returns:
        The graph. Its input and output are those of CONTRACTS for `config.io`, whatever the types inside.

    Raises:
        InputError: A layer to quantise is not in the model, the ranges belong to another model, the graph cannot be
            made FP16, or TensorRT would refuse it.
        PrecisionError: INT8 was asked for, and no layer is INT8.
        UsageError: INT8 without ranges, FP16 on a base of FP32, or an unknown base; for a prequantized model ranges,
            layers to quantise, another precision, or a base of FP16 that would round its scales.
    """
    base = _checked_base(config, base)
    graph_model, spec = model.copy(), model.spec
    prequantized = check_scales(graph_model, config, ranges)
    if ranges is not None:
        ranges.require_model(model.sha256)
    if prequantized:
        check_logits_size(model)
        graph_model = _prepare_prequantized(graph_model, config, base)
    scheme = TensorRtScheme(base == "fp16", config.weight_rounding or "nearest")
    if config.precision == "int8" and ranges is not None:
        _quantize(graph_model, config, ranges, scheme)
    images = spec if config.io == "image" else None
    audit = None
    if base == "fp16":
        audit = audit_fp16_range(graph_model.graph, None if ranges is None else ranges.histograms)
    keep = audit.keep if audit is not None else ()
    lowering = pipelines.tensorrt(base, images, quantized=config.precision == "int8", keep_fp32=keep)
    graph_model = lowering(graph_model).model
    graph_model.metadata_props[ENGINE_KEY] = f"{config.precision}-{base}"
    graph_model.metadata_props.setdefault(METADATA_KEY, spec.dumps())
    _require_clean(graph_model)
    if prequantized:
        precision = prequantized_precision(graph_model, base)
    else:
        method = config.method if config.precision == "int8" else None
        precision = Precision(config.precision, base, method, _layers(graph_model.graph))
    if config.precision == "int8" and ranges is not None:
        corrected = bool(config.bias_means(ranges))
        precision = replace(precision, bias_corrected=corrected, weight_rounding=scheme.rounding)
    if audit is not None:
        precision = replace(precision, audited=audit.audited, kept_fp32=(*audit.tensors, *audit.weights))
    content = serialize(graph_model, "the engine's graph")
    return TypedGraph(content, precision, (*config.warnings(ranges), *_notes(audit)))


def _checked_base(config: BuildConfig, base: Base) -> Base:
    require_base(base)
    if config.precision == "fp16" and base == "fp32":
        raise UsageError("an FP16 graph on a base of FP32", fix='leave `base` out, or ask for `precision="fp32"`')
    return "fp32" if config.precision == "fp32" else base


def _quantize(model: ir.Model, config: BuildConfig, ranges: Ranges, scheme: TensorRtScheme) -> None:
    layers = layers_to_quantize(model.graph, config)
    means = config.bias_means(ranges)
    emit_tensorrt(model, choose(ranges.histograms, config.method, symmetric=True), layers, scheme, means)


def _prepare_prequantized(model: ir.Model, config: BuildConfig, base: Base) -> ir.Model:
    if config.int8_layers is not None:
        raise UsageError("layers to quantise in a graph that brings its own Q/DQ", got=", ".join(config.int8_layers))
    model = pipelines.prequantized()(model).model
    _require_clean(model)  # before the base is looked at: another base does not mend the graph
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
            dtype = weights.dtype or ir.DataType.FLOAT  # an FP32 graph need not say the type; an FP16 graph does
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


def _notes(audit: Fp16Audit | None) -> list[str]:
    """What to tell the user about the audit of FP16; nothing if the graph has no FP16."""
    notes: list[str] = []
    if audit is None:
        return notes
    if not audit.audited:
        notes.append("FP16 was not audited: without calibration it is not known whether every tensor fits its range.")
    if audit.tensors:
        notes.append(
            f"Stays FP32, because calibration saw values outside FP16's range ({SMALLEST:.2g} to {LARGEST:g}, with a "
            f"margin of a factor of {MARGIN:g}): {', '.join(audit.tensors)}."
        )
    if audit.weights:
        notes.append(f"Stays FP32, because its constants are outside FP16's range: {', '.join(audit.weights)}.")
    return notes
