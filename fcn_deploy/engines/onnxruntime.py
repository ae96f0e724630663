"""Engines for ONNX Runtime: plain ONNX files, in FP32 or with Q/DQ that its CPU kernels run in INT8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir

from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import ENGINE_KEY
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.engines.checks import check_onnxruntime
from fcn_deploy.engines.config import BuildConfig, TargetCpu
from fcn_deploy.engines.engine import BuildRecord, Engine, make_engine
from fcn_deploy.engines.int8_layers import layers_to_quantize
from fcn_deploy.engines.logits_size import check_logits_size
from fcn_deploy.engines.prequantized import achieved_by_onnxruntime, check_scales, prequantized_precision
from fcn_deploy.engines.target_cpu import resolve_target, weight_limit
from fcn_deploy.errors import InputError, PrecisionError
from fcn_deploy.graph.model import ExportedModel, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.winograd import winograd_layers
from fcn_deploy.quantization.balance import balance
from fcn_deploy.quantization.cpu_scheme import CpuScheme
from fcn_deploy.quantization.methods import choose
from fcn_deploy.quantization.onnxruntime import emit_onnxruntime
from fcn_deploy.quantization.prequantized import saturating_weights
from fcn_deploy.quantization.selection import convolution_names, transposed_layers
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_log = logging.getLogger(__name__)

# Of weights that saturate on a target: which do where, what keeps int8, and how to mend what cannot be converted.
_SATURATION = {
    "generic": (
        "use all 8 bits, which would saturate on CPUs without VNNI",
        '`target_cpu="vnni"` keeps int8',
        'quantise with reduce_range=True, or build with `target_cpu="vnni"`',
    ),
    "vnni": (
        "hold -128, which would saturate on Arm",
        "quantising to -127..127 keeps int8",
        "quantise weights to -127..127, in torch with quant_min=-127",
    ),
}


def build_onnxruntime(model: ExportedModel, config: BuildConfig, ranges: Ranges | None = None) -> Engine:
    """Builds an engine for ONNX Runtime's CPU provider.

    Args:
        model: As `export` writes it, or prequantized.
        config: Precision, input and output, target CPU.
        ranges: What calibration saw, for INT8 of a model without Q/DQ; other builds ignore them.

    Returns:
        The engine. ONNX Runtime has loaded it, and runs every INT8 layer in INT8. If the model is prequantized it may
        run some of them in float, which the sidecar says.

    Raises:
        ArtifactError: ONNX Runtime cannot load what was built.
        InputError: The ranges belong to another model, or the layers of the configuration are not the model's.
        PrecisionError: No layer is INT8, or ONNX Runtime would run one in float; of a prequantized model, all of them.
        UsageError: FP16, which ONNX Runtime's CPU has no kernels for; INT8 without ranges; ranges for a prequantized
            model, or another precision than INT8.
    """
    check_onnxruntime(config)
    config = replace(config, target_cpu=resolve_target(config.target_cpu))
    graph_model, precision = _lower(model, config, ranges)
    data = _content(graph_model)
    if precision.method == PREQUANTIZED:
        precision = _achieved_by_prequantized(graph_model, data, precision)
    else:
        _check_achieved(data, precision)
        precision = replace(precision, achieved=config.precision)
    used = ranges if config.precision == "int8" else None
    for warning in config.warnings(used):
        _log.warning(warning)
    record = BuildRecord(
        backend=OnnxRuntimeBackend.name,
        library=OnnxRuntimeBackend.version,
        precision=precision,
        target={"cpu": config.target_cpu, "gpu": []},
        winograd=winograd_layers(graph_model.graph),
    )
    return make_engine(data, model, used, config.io, record)


def onnxruntime_graph(
    model: ExportedModel, config: BuildConfig, ranges: Ranges | None = None
) -> tuple[bytes, Precision]:
    """Makes the graph of an engine for ONNX Runtime, without looking at what ONNX Runtime makes of it.

    Args:
        model: As `export` writes it, or prequantized.
        config: Precision, input and output, target CPU.
        ranges: What calibration saw, for INT8.

    Returns:
        The content of an ONNX file, and the precision asked of each layer.

    Raises:
        InputError: The ranges belong to another model, or the layers of the configuration are not the model's.
        UsageError: FP16, which ONNX Runtime's CPU has no kernels for; or INT8 without ranges.
    """
    check_onnxruntime(config)
    config = replace(config, target_cpu=resolve_target(config.target_cpu))
    graph_model, precision = _lower(model, config, ranges)
    return _content(graph_model), precision


def _content(model: ir.Model) -> bytes:
    fix = None
    if winograd_layers(model.graph):
        fix = "build it with `winograd=False`: Winograd's algorithm takes four times the weights of a layer"
    return serialize(model, "the engine", fix)


def _lower(model: ExportedModel, config: BuildConfig, ranges: Ranges | None) -> tuple[ir.Model, Precision]:
    graph_model, spec = model.copy(), model.spec
    precision = Precision("fp32", "fp32", layers=dict.fromkeys(convolution_names(graph_model.graph), "fp32"))
    if check_scales(graph_model, config, ranges):
        check_logits_size(model)
        graph_model = pipelines.prequantized()(graph_model).model
        precision = prequantized_precision(graph_model, "fp32")
        graph_model = _without_saturation(graph_model, config.target_cpu)
    elif config.precision == "int8" and ranges is not None:
        ranges.require_model(model.sha256)
        precision = _quantize(graph_model, config, ranges)
    images = spec if config.io == "image" else None
    graph_model = pipelines.onnxruntime_cpu(images, _floats(config.winograd, precision))(graph_model).model
    graph_model.metadata_props[ENGINE_KEY] = f"{config.precision}-{config.target_cpu}"
    graph_model.metadata_props.setdefault(METADATA_KEY, spec.dumps())
    return graph_model, precision


def _quantize(model: ir.Model, config: BuildConfig, ranges: Ranges) -> Precision:
    balance(model.graph, ranges.scales)
    layers = layers_to_quantize(model.graph, config, transposed=True)
    precisions = {name: "int8" if name in layers else "fp32" for name in convolution_names(model.graph)}
    means = config.bias_means(ranges)
    rounding = config.weight_rounding or "correlated"
    scheme = CpuScheme(weight_limit(config.target_cpu), rounding)
    # Their inputs have no means in the ranges of earlier versions, and correcting biases changes next to nothing.
    subpixels = [name for name in transposed_layers(model.graph) if name in layers]
    pipelines.before_onnxruntime_integers(subpixels)(model)
    chosen = choose(ranges.histograms, config.method, symmetric=False)
    emit_onnxruntime(model, chosen, layers, scheme, means, subpixels)
    return Precision("int8", "fp32", config.method, precisions, bias_corrected=bool(means), weight_rounding=rounding)


def _floats(layers: tuple[str, ...] | None, precision: Precision) -> tuple[str, ...] | None:
    """The layers that are not INT8; None, which leaves the choice to the pass, stays None."""
    return layers and tuple(name for name in layers if precision.layers.get(name) != "int8")


def _without_saturation(model: ir.Model, target: TargetCpu) -> ir.Model:
    """Stores integers as the target's kernels want them: activations in uint8, and weights that do not saturate."""
    limit = weight_limit(target)
    saturating = saturating_weights(model.graph, limit)
    where, keeps, fix = _SATURATION[target]
    if saturating:
        stored = "they are stored as uint8 with the same scales, whose kernels do not saturate but may take longer"
        _log.info("weights of %d layers %s: %s; %s", len(saturating), where, stored, keeps)
    names = {str(weights.name) for weights in saturating.values()}
    model = pipelines.onnxruntime_cpu_integers(names)(model).model
    if saturating and (left := saturating_weights(model.graph, limit)):
        raise InputError(
            f"weights {where}, and cannot be stored as uint8",
            got=", ".join(left),
            expected="constant scales and zero points",
            fix=fix,
        )
    return model


def _achieved_by_prequantized(model: ir.Model, data: bytes, precision: Precision) -> Precision:
    precision, in_float = achieved_by_onnxruntime(model, _optimized(data), precision)
    if in_float:
        _log.warning(
            "ONNX Runtime has no integer kernel for %s with the Q/DQ that they have: they run in float, between Q/DQ",
            ", ".join(in_float),
        )
    return precision


def _optimized(data: bytes) -> Sequence[onnx.NodeProto]:
    """Loads the engine and returns the graph that ONNX Runtime makes of it."""
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as folder:
        optimized = Path(folder, "optimized.onnx")
        OnnxRuntimeBackend(data, optimized_path=optimized).close()
        return list(onnx.load(optimized).graph.node)


def _check_achieved(data: bytes, precision: Precision) -> None:
    asked = {name for name, layer in precision.layers.items() if layer == "int8"}
    nodes = _optimized(data)
    # Count them: a fused convolution has the layer's name, but with a suffix if the name was taken.
    fused = [node.name for node in nodes if node.op_type == "QLinearConv"]
    in_float = [node.name for node in nodes if node.op_type in ("Conv", "FusedConv")]
    if len(fused) != len(asked):
        raise PrecisionError(
            "ONNX Runtime does not run every INT8 layer in INT8",
            got=f"{len(fused)} layers in INT8, in float: {', '.join(in_float)}",
            expected=f"{len(asked)}: {', '.join(sorted(asked))}",
        )
