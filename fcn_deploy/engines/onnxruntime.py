"""Engines for ONNX Runtime: plain ONNX files, in FP32 or with Q/DQ that its CPU kernels run in INT8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, EngineFile, Sidecar, Source
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.engines.check_logits_size import check_sizes
from fcn_deploy.engines.engine import NO_MEANS, BuildConfig, Engine, TargetCpu, brings_scales, check_ranges, means_for
from fcn_deploy.engines.prequantized import achieved_by_onnxruntime, given_precision
from fcn_deploy.errors import InputError, PrecisionError, UsageError
from fcn_deploy.files import sha256_bytes
from fcn_deploy.graph.model import exported_spec, parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.winograd import winograd_layers
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.onnxruntime import OrtScheme, emit_onnxruntime
from fcn_deploy.quantization.prequantized import saturating_weights
from fcn_deploy.quantization.selection import int8_layers
from fcn_deploy.runtime.cpu import has_vnni
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_log = logging.getLogger(__name__)


def build_onnxruntime(model: bytes, config: BuildConfig, ranges: Ranges | None = None) -> Engine:
    """Builds an engine for ONNX Runtime's CPU provider.

    Args:
        model: Content of an ONNX file as `export` writes it, or with Q/DQ of its own.
        config: Precision, input and output, target CPU.
        ranges: What calibration saw, for INT8 of a model without Q/DQ.

    Returns:
        The engine; ONNX Runtime has loaded it, and runs in INT8 what was to. Of a model with Q/DQ it may run part in
        float, which the sidecar says.

    Raises:
        ArtifactError: ONNX Runtime cannot load what was built.
        InputError: The model is not an exported net, or the ranges are not the model's.
        PrecisionError: ONNX Runtime would run a layer in float that was to be INT8; of a model with Q/DQ, every one.
        UsageError: FP16, which ONNX Runtime's CPU has no kernels for; INT8 without ranges; ranges or FP32 for a model
            with Q/DQ.
    """
    data, precision = onnxruntime_graph(model, config, ranges)
    if precision.method == PREQUANTIZED:
        precision = _given_achieved(parse(data), data, precision)
    else:
        _check_achieved(data, precision)
        precision = replace(precision, achieved=config.precision)
    source = Source(sha256_bytes(model))
    if config.precision == "int8" and ranges is not None:
        source = Source(source.onnx_sha256, sha256_bytes(ranges.dumps()), asdict(ranges.data))
        if ranges.data.random:
            _log.warning("these ranges were observed on noise: the engine is for timing, not for use")
        if config.bias_correction and not ranges.means:
            _log.warning(NO_MEANS)
    sidecar = Sidecar(
        engine=EngineFile("", sha256_bytes(data), len(data)),
        backend=OnnxRuntimeBackend.name,
        library=OnnxRuntimeBackend.version,
        io=config.io,
        precision=precision,
        spec=exported_spec(parse(model), stated=config.spec),
        source=source,
        target={"cpu": resolve_target(config.target_cpu), "gpu": []},
        winograd=winograd_layers(parse(data).graph),
    )
    return Engine(data, sidecar)


def onnxruntime_graph(model: bytes, config: BuildConfig, ranges: Ranges | None = None) -> tuple[bytes, Precision]:
    """Makes what `build_onnxruntime` makes an engine of, without looking at what ONNX Runtime does with it.

    Args:
        model: Content of an ONNX file as `export` writes it.
        config: Precision, input and output, target CPU.
        ranges: What calibration saw, for INT8.

    Returns:
        The content of an ONNX file, and the precision asked of each layer.

    Raises:
        InputError: The model is not an exported net, or the ranges are not the model's.
        UsageError: FP16, which ONNX Runtime's CPU has no kernels for; or INT8 without ranges.
    """
    check_onnxruntime(config)
    graph_model = parse(model)
    spec = exported_spec(graph_model, stated=config.spec)
    target = resolve_target(config.target_cpu)
    precision = Precision("fp32", "fp32", layers=dict.fromkeys(_layers(graph_model), "fp32"))
    if brings_scales(graph_model, config, ranges):
        check_sizes(model)
        graph_model = pipelines.prequantized()(graph_model).model
        precision = given_precision(graph_model, "fp32")
        graph_model = _without_saturation(graph_model, target)
    elif config.precision == "int8" and ranges is not None:
        check_ranges(ranges, sha256_bytes(model))
        precision = _quantize(graph_model, config, ranges, target)
    images = spec.normalization if config.io == "image" else None
    graph_model = pipelines.onnxruntime_cpu(images, _floats(config.winograd, precision))(graph_model).model
    graph_model.metadata_props[ENGINE_KEY] = f"{config.precision}-{target}"
    graph_model.metadata_props.setdefault(METADATA_KEY, spec.dumps())
    return serialize(graph_model), precision


def check_onnxruntime(config: BuildConfig) -> None:
    """Checks what can be checked before work starts.

    Raises:
        UsageError: FP16, which ONNX Runtime's CPU has no kernels for.
    """
    if config.precision == "fp16":
        raise UsageError(
            "ONNX Runtime's CPU kernels do not compute in FP16",
            got="--fp16 for onnxruntime",
            expected="--fp32 or --int8",
        )


def resolve_target(target: TargetCpu) -> TargetCpu:
    """Returns `target`, or for `native` what this machine's CPU is: `generic` or `vnni`.

    Raises:
        UsageError: `native` on a system that does not say what its CPU has.
    """
    if target != "native":
        return target
    vnni = has_vnni()
    if vnni is None:
        raise UsageError(
            "this system does not list what its CPU has", got="--target-cpu native", expected="generic or vnni"
        )
    _log.info("target CPU: this machine's, %s", "vnni" if vnni else "generic, for it has no VNNI")
    return "vnni" if vnni else "generic"


def _layers(model: ir.Model) -> list[str]:
    return [str(node.name) for node in model.graph if node.op_type in ("Conv", "ConvTranspose")]


def _quantize(model: ir.Model, config: BuildConfig, ranges: Ranges, target: TargetCpu) -> Precision:
    layers = int8_layers(model.graph, config.int8_layers)
    precisions = {name: "int8" if name in layers else "fp32" for name in _layers(model)}
    means = means_for(config, ranges)
    rounding = config.weight_rounding or "correlated"
    scheme = OrtScheme(127 if target == "vnni" else 64, rounding)
    emit_onnxruntime(model, choose(ranges.histograms, config.method, symmetric=False), layers, scheme, means)
    return Precision("int8", "fp32", config.method, precisions, bias_corrected=bool(means), weight_rounding=rounding)


def _floats(layers: tuple[str, ...] | None, precision: Precision) -> tuple[str, ...] | None:
    return layers and tuple(name for name in layers if precision.layers.get(name) != "int8")


def _without_saturation(model: ir.Model, target: TargetCpu) -> ir.Model:
    """Stores integers as the target's kernels want them: activations in uint8, and weights that do not saturate."""
    saturating = saturating_weights(model.graph) if target == "generic" else {}
    if saturating:
        _log.info(
            "weights of %d layers use all 8 bits, which would saturate on CPUs without VNNI: they are stored as uint8, "
            "with the same scales, for kernels that do not and take longer; --target-cpu vnni keeps int8",
            len(saturating),
        )
    names = {str(weights.name) for weights in saturating.values()}
    model = pipelines.onnxruntime_cpu_integers(names)(model).model
    if saturating and (left := saturating_weights(model.graph)):
        raise InputError(
            "weights would saturate on CPUs without VNNI, and cannot be stored as uint8",
            got=", ".join(left),
            expected="constant scales and zero points",
            fix="quantise with reduce_range=True, or build with --target-cpu vnni",
        )
    return model


def _given_achieved(model: ir.Model, data: bytes, precision: Precision) -> Precision:
    precision, in_float = achieved_by_onnxruntime(model, _optimized(data), precision)
    if in_float:
        _log.warning(
            "ONNX Runtime has no integer kernel for %s as their Q/DQ stand: they run in float, between Q/DQ",
            ", ".join(in_float),
        )
    return precision


def _optimized(data: bytes) -> Sequence[onnx.NodeProto]:
    """Loads the engine and returns the graph ONNX Runtime makes of it."""
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as folder:
        optimized = Path(folder, "optimized.onnx")
        OnnxRuntimeBackend(data, optimized_path=optimized).close()
        return list(onnx.load(optimized).graph.node)


def _check_achieved(data: bytes, precision: Precision) -> None:
    asked = {name for name, layer in precision.layers.items() if layer == "int8"}
    nodes = _optimized(data)
    # A fused convolution writes a tensor called as the layer, with a suffix where the name was taken.
    fused = [node.name for node in nodes if node.op_type == "QLinearConv"]
    in_float = [node.name for node in nodes if node.op_type in ("Conv", "FusedConv")]
    if len(fused) != len(asked):
        raise PrecisionError(
            "ONNX Runtime does not run every INT8 layer in INT8",
            got=f"{len(fused)} layers in INT8, in float: {', '.join(in_float)}",
            expected=f"{len(asked)}: {', '.join(sorted(asked))}",
        )
