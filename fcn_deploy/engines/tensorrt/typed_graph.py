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
from fcn_deploy.graph.ops import DEQUANTIZE
from fcn_deploy.passes import pipelines
from fcn_deploy.quantization.balance import balance
from fcn_deploy.quantization.fp16_range import LARGEST, MARGIN, SMALLEST, Fp16Audit, audit_fp16_range
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.params import ScaleType
from fcn_deploy.quantization.prequantized import check_scales_of_base
from fcn_deploy.quantization.tensorrt import QuantizedNumbers, TensorRtScheme, emit_tensorrt
from fcn_deploy.quantization.tensorrt_lint import lint
from fcn_deploy.quantization.tensors import data_input, passed_on_from
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS, Flavor

_SCALES: dict[Base, ScaleType] = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
_NUMBERS = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}


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
    *,
    flavor: Flavor = FLAVORS["tensorrt"],
) -> TypedGraph:
    """Makes the typed graph of an exported model.

    Args:
        model: As `export` writes it, or prequantized.
        config: Precision, input and output, and how ranges are chosen; the target CPU is ignored.
        ranges: What calibration saw: needed for INT8 of a model without Q/DQ, and for FP8; FP16 is audited by them.
        base: What an INT8 or FP8 graph computes in where it is not quantised. Other graphs have one precision, and
            `fp16` stands for that.
        flavor: The library that is to parse it. What it fuses decides where scales and Q/DQ stand.

    Returns:
        The graph. Its input and output are those of CONTRACTS for `config.io`, whatever the types inside.

    Raises:
        InputError: A layer to quantise is not in the model, the ranges belong to another model, the graph cannot be
            made FP16, or TensorRT would refuse it.
        PrecisionError: INT8 or FP8 was asked for, and no layer is.
        UsageError: INT8 or FP8 without ranges, FP16 or BF16 on another base, or an unknown base; for a prequantized
            model ranges, layers to quantise, another precision, or a base that would round its scales.
    """
    base = _checked_base(config, base)
    graph_model, spec = model.copy(), model.spec
    prequantized = check_scales(graph_model, config, ranges)
    if ranges is not None:
        ranges.require_model(model.sha256)
        balance(graph_model.graph, ranges.scales)  # in FP16, too: the ranges are those of the balanced net
    if prequantized:
        check_logits_size(model)
        graph_model = _prepare_prequantized(graph_model, config, base)
    numbers: QuantizedNumbers = "fp8" if config.precision == "fp8" else "int8"
    scheme = TensorRtScheme(
        _SCALES[base],
        config.weight_rounding or "nearest",
        numbers,
        split_scales=numbers == "int8" and base == "fp16" and not flavor.fuses_channel_scales,
        before_pools=numbers == "int8" and not flavor.fuses_channel_scales,
    )
    if config.quantized and ranges is not None:
        _quantize(graph_model, config, ranges, scheme)
    images = spec if config.io == "image" else None
    audit = None
    if base == "fp16":
        audit = audit_fp16_range(graph_model.graph, None if ranges is None else ranges.histograms)
    keep = audit.keep if audit is not None else ()
    lowering = pipelines.tensorrt(
        base,
        images,
        quantized=numbers if config.quantized else None,
        keep_fp32=keep,
        pad_classes=flavor.pads_by_copies,
    )
    graph_model = lowering(graph_model).model
    graph_model.metadata_props[ENGINE_KEY] = f"{config.precision}-{base}"
    graph_model.metadata_props.setdefault(METADATA_KEY, spec.dumps())
    _require_clean(graph_model, _NUMBERS[numbers])
    if prequantized:
        precision = prequantized_precision(graph_model, base)
    else:
        method = config.method if config.quantized else None
        precision = Precision(config.precision, base, method, _layers(graph_model.graph))
    if config.quantized and ranges is not None:
        corrected = bool(config.bias_means(ranges))
        precision = replace(precision, bias_corrected=corrected, weight_rounding=scheme.rounding)
    if audit is not None:
        precision = replace(precision, audited=audit.audited, kept_fp32=(*audit.tensors, *audit.weights))
    content = serialize(graph_model, "the engine's graph")
    return TypedGraph(content, precision, (*config.warnings(ranges), *_notes(audit)))


def _checked_base(config: BuildConfig, base: Base) -> Base:
    require_base(base)
    if config.precision in ("fp16", "bf16") and base not in ("fp16", config.precision):
        raise UsageError(
            f"the base of {config.precision.upper()} is {config.precision.upper()} itself",
            got=f'`base="{base}"`',
            fix=f'leave `base` out, or ask for `precision="{base}"`',
        )
    if config.precision == "fp32":
        return "fp32"
    return "bf16" if config.precision == "bf16" else base


def _quantize(model: ir.Model, config: BuildConfig, ranges: Ranges, scheme: TensorRtScheme) -> None:
    layers = layers_to_quantize(model.graph, config)
    means = config.bias_means(ranges)
    emit_tensorrt(model, choose(ranges.histograms, config.method, symmetric=True), layers, scheme, means)


def _prepare_prequantized(model: ir.Model, config: BuildConfig, base: Base) -> ir.Model:
    if config.int8_layers is not None:
        raise UsageError("layers to quantise in a graph that brings its own Q/DQ", got=", ".join(config.int8_layers))
    model = pipelines.prequantized()(model).model
    _require_clean(model, ir.DataType.INT8)  # before the base is looked at: another base does not mend the graph
    if base != "fp32":
        check_scales_of_base(model.graph, base)
    return model


def _layers(graph: ir.Graph) -> dict[str, str]:
    """The precision the graph asks for each convolution."""
    names = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
    layers: dict[str, str] = {}
    for node in graph:
        if node.op_type in ("Conv", "ConvTranspose"):
            weights = node.inputs[1]
            assert weights is not None
            dtype = weights.dtype or ir.DataType.FLOAT  # an FP32 graph need not say the type; an FP16 graph does
            read = [_quantized_numbers(each) for each in (data_input(node), weights)]
            quantized = read[1] if all(read) else None
            layers[str(node.name)] = quantized or names.get(dtype, dtype.name.lower())
    return layers


def _quantized_numbers(value: ir.Value) -> str | None:
    """Returns `int8` or `fp8` if a tensor was dequantised of them; else None."""
    for each in passed_on_from(value):
        producer = each.producer()
        if producer is not None and producer.op_type == DEQUANTIZE:
            return "fp8" if data_input(producer).dtype == ir.DataType.FLOAT8E4M3FN else "int8"
    return None


def _require_clean(model: ir.Model, quantized: ir.DataType) -> None:
    findings = lint(model, quantized)
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
