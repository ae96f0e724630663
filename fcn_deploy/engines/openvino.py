"""Engines for OpenVINO: plain ONNX files, in float or with Q/DQ that its CPU kernels run in INT8."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

import onnx_ir as ir

from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, OPENVINO_KEY, SIMULATED
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.engines.checks import check_openvino
from fcn_deploy.engines.config import Base, BuildConfig
from fcn_deploy.engines.engine import BuildRecord, Engine, make_engine
from fcn_deploy.engines.int8_layers import layers_to_quantize
from fcn_deploy.engines.kernel_check import check_kernels
from fcn_deploy.engines.logits_size import check_logits_size
from fcn_deploy.engines.prequantized import check_scales, prequantized_precision
from fcn_deploy.engines.required_int8 import require_int8
from fcn_deploy.engines.target_cpu import resolve_target, weight_limit
from fcn_deploy.errors import InputError, PrecisionError
from fcn_deploy.graph.model import ExportedModel, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.image_io import LogitsLayout, ends_in_resize
from fcn_deploy.quantization.balance import balance
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.openvino import emit_openvino
from fcn_deploy.quantization.prequantized import saturating_weights
from fcn_deploy.quantization.selection import convolution_names, transposed_layers
from fcn_deploy.runtime.openvino import library
from fcn_deploy.runtime.openvino.backend import OpenVinoBackend
from fcn_deploy.runtime.openvino.precisions import layer_precisions, listed

_log = logging.getLogger(__name__)

# From so many channels on OpenVINO 2026.4 brings float32 maps into planes by a kernel that takes longer than all else.
_FLAT_BELOW = 16


def build_openvino(
    model: ExportedModel, config: BuildConfig, ranges: Ranges | None = None, base: Base | None = None
) -> Engine:
    """Builds an engine for OpenVINO's CPU device.

    Args:
        model: As `export` writes it, or prequantized.
        config: Precision, input and output, target CPU.
        ranges: What calibration saw, for INT8 of a model without Q/DQ; other builds ignore them.
        base: What an INT8 engine computes in where it is not quantised, `fp32` or `bf16`; `fp32` if None.

    Returns:
        The engine. OpenVINO has compiled it, and the sidecar says what each layer runs in.

    Raises:
        ArtifactError: OpenVINO cannot compile what was built, or computes something else.
        DependencyError: OpenVINO is not installed, or BF16 is asked for and this CPU does not have it.
        InputError: The ranges belong to another model, or the layers of the configuration are not the model's.
        PrecisionError: A layer that was to be INT8 runs in float; or no layer is, or runs in the precision asked for.
        UsageError: The backend cannot do what is asked for; INT8 without ranges; ranges for a prequantized model, or
            another precision than INT8.
    """
    check_openvino(config, base)
    config = replace(config, target_cpu=resolve_target(config.target_cpu))
    prepared, precision = _prepare(model, config, ranges, base or "fp32")
    floats = "fp32" if precision.base is None else precision.base
    data = _content(_finish(prepared.clone(), model, config, floats), floats)
    if apart := quantized_alone(data):
        data = _content(_finish(prepared.clone(), model, config, floats, apart), floats)
    achieved = achieved_precision(data, precision)
    logits = _finish(prepared, model, replace(config, io="tensor"), floats, apart)
    quantized = config.precision == "int8" and precision.method != PREQUANTIZED
    check_kernels(logits, model, "bf16" if floats == "bf16" else "fp32", quantized=quantized)
    used = ranges if config.precision == "int8" else None
    for warning in config.warnings(used):
        _log.warning(warning)
    needs = {"cpu_features": ["bf16"]} if floats == "bf16" else {}
    record = BuildRecord(
        backend=library.NAME,
        library=library.version(),
        precision=achieved,
        target={"cpu": config.target_cpu, "gpu": [], **needs},
    )
    return make_engine(data, model, used, config.io, record)


def openvino_simulation(model: ExportedModel, config: BuildConfig, ranges: Ranges | None = None) -> bytes:
    """Makes the graph of an engine for OpenVINO for ONNX Runtime, which computes its Q/DQ in float.

    Args:
        model: As `export` writes it.
        config: What the engine would be.
        ranges: What calibration saw, for INT8.

    Returns:
        The content of an ONNX file.

    Raises:
        InputError: The ranges belong to another model, or the layers of the configuration are not the model's.
        UsageError: INT8 without ranges.
    """
    config = replace(config, target_cpu=resolve_target(config.target_cpu))
    graph_model = _finish(_prepare(model, config, ranges, "fp32")[0], model, config, "fp32")
    graph_model.metadata_props[ENGINE_KEY] += SIMULATED
    return serialize(graph_model, "the engine")


def _content(graph: ir.Model, base: str) -> bytes:
    graph.metadata_props[OPENVINO_KEY] = base
    return serialize(graph, "the engine")


def quantized_alone(data: bytes) -> set[str]:
    """Compiles an engine, and finds the QuantizeLinear that OpenVINO computes by kernels of their own.

    Args:
        data: The content of its ONNX file.

    Returns:
        Their names; those of quantisations that are part of the kernel before them are not among them.

    Raises:
        ArtifactError: OpenVINO cannot compile it.
    """
    with OpenVinoBackend(data) as backend:
        return {name for node in backend.executed() if node.kind == "FakeQuantize" for name in node.layers}


def achieved_precision(data: bytes, precision: Precision) -> Precision:
    """Compiles an engine, and finds what its layers run in.

    Args:
        data: The content of its ONNX file.
        precision: What was asked for.

    Returns:
        The precision with what was achieved, layer by layer.

    Raises:
        ArtifactError: OpenVINO cannot compile it.
        PrecisionError: A layer that was to be INT8 runs in float, if the model is not prequantized; or no layer runs in
            the precision asked for.
    """
    with OpenVinoBackend(data) as backend:
        nodes = backend.executed()
    found = layer_precisions(nodes, precision.layers)
    missed = {name: kind for name, kind in found.items() if kind != precision.layers[name]}
    known = replace(precision, achieved="mixed" if missed else precision.requested, achieved_layers=found)
    fix = "build for onnxruntime, or ask for another precision"
    if precision.method == PREQUANTIZED:
        require_int8(
            known, f"OpenVINO {library.version()}", f"let the tool quantise weights to int8, not uint8; or {fix}"
        )
    elif precision.requested == "int8":
        _require_all_int8(known, missed, fix)
    elif precision.layers and precision.requested not in found.values():
        raise PrecisionError(
            f"OpenVINO {library.version()} runs no layer in {precision.requested.upper()}",
            got=listed(found),
            fix=fix,
        )
    if missed:
        # That a transposed convolution of a BF16 engine stays float is known; that INT8 was in vain is not.
        level = logging.WARNING if any(precision.layers[name] == "int8" for name in missed) else logging.INFO
        _log.log(level, "OpenVINO runs these layers in another precision than was asked for: %s", listed(missed))
    return known


def _require_all_int8(precision: Precision, missed: dict[str, str | None], fix: str) -> None:
    in_float = {name: kind for name, kind in missed.items() if precision.layers[name] == "int8"}
    if in_float:
        raise PrecisionError(
            f"OpenVINO {library.version()} does not run every INT8 layer in INT8",
            got=listed(in_float),
            expected=listed(dict.fromkeys(in_float, "int8")),
            fix=fix,
        )


def _prepare(
    model: ExportedModel, config: BuildConfig, ranges: Ranges | None, base: Base
) -> tuple[ir.Model, Precision]:
    """Makes the graph in float, or with Q/DQ, that still takes `image` and gives `logits`."""
    graph_model = model.copy()
    floats = "bf16" if config.precision == "bf16" else base
    precision = Precision(config.precision, floats, layers=dict.fromkeys(convolution_names(graph_model.graph), floats))
    if check_scales(graph_model, config, ranges):
        check_logits_size(model)
        graph_model = pipelines.prequantized()(graph_model).model
        precision = prequantized_precision(graph_model, floats)
        in_base = {name: floats if kind == "fp32" else kind for name, kind in precision.layers.items()}
        precision = replace(precision, layers=in_base)
        _refuse_saturation(graph_model, config)
    elif config.precision == "int8" and ranges is not None:
        ranges.require_model(model.sha256)
        precision = _quantize(graph_model, config, ranges, floats)
    return graph_model, precision


def _finish(
    prepared: ir.Model, model: ExportedModel, config: BuildConfig, base: str, apart: Collection[str] = ()
) -> ir.Model:
    """Makes of the graph, which is changed, the one of the engine."""
    image_io = model.spec if config.io == "image" else None
    layout = _logits_layout(prepared.graph, model.spec.num_classes, base)
    graph_model = pipelines.openvino(image_io, apart, layout=layout)(prepared).model
    graph_model.metadata_props[ENGINE_KEY] = f"{config.precision}-{config.target_cpu}"
    graph_model.metadata_props.setdefault(METADATA_KEY, model.spec.dumps())
    return graph_model


def _logits_layout(graph: ir.Graph, classes: int, base: str) -> LogitsLayout:
    """Chooses how logits lie when their ArgMax is taken, by what OpenVINO does in the least time: docs/openvino.md."""
    if classes < _FLAT_BELOW:
        return "flat"
    return "first" if base == "bf16" and ends_in_resize(graph) else "last"


def _refuse_saturation(model: ir.Model, config: BuildConfig) -> None:
    """Refuses weights that would saturate on the target; OpenVINO has no kernels that would take them as uint8."""
    # For `vnni`, weights of -128 saturate on Arm alone, where the runtime refuses what another tool has quantised.
    if config.target_cpu == "generic" and (saturating := saturating_weights(model.graph, weight_limit("generic"))):
        raise InputError(
            "weights would saturate on CPUs without VNNI",
            got=", ".join(saturating),
            expected="weights in -64..64",
            fix='quantise with reduce_range=True, or build with `target_cpu="vnni"`',
        )


def _quantize(model: ir.Model, config: BuildConfig, ranges: Ranges, base: str) -> Precision:
    balance(model.graph, ranges.scales)
    layers = layers_to_quantize(model.graph, config, transposed=True)
    precisions = {name: "int8" if name in layers else base for name in convolution_names(model.graph)}
    means = config.bias_means(ranges)
    rounding = config.weight_rounding or "correlated"
    scheme = CpuScheme(weight_limit(config.target_cpu), rounding)
    # Their biases stay what they are, as for ONNX Runtime.
    subpixels = [name for name in transposed_layers(model.graph) if name in layers]
    pipelines.before_openvino_integers(subpixels)(model)
    chosen = choose(ranges.histograms, config.method, symmetric=False)
    emit_openvino(model, chosen, layers, scheme, means, subpixels)
    return Precision("int8", base, config.method, precisions, bias_corrected=bool(means), weight_rounding=rounding)
