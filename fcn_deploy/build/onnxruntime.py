"""Engines for ONNX Runtime: plain ONNX files, in FP32 or with Q/DQ that its CPU kernels run in INT8."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from fcn_deploy import passes
from fcn_deploy.build.engine import NO_MEANS, BuildConfig, Engine, TargetCpu, check_ranges, means_for
from fcn_deploy.errors import PrecisionError, UsageError
from fcn_deploy.files import sha256_bytes
from fcn_deploy.graph import exported_spec, parse, serialize
from fcn_deploy.quant.emit import OrtScheme, emit_onnxruntime
from fcn_deploy.quant.methods import choose
from fcn_deploy.quant.ranges import Ranges
from fcn_deploy.quant.selection import int8_layers
from fcn_deploy.runtime.cpu import has_vnni
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.sidecar import ENGINE_KEY, EngineFile, Precision, Sidecar, Source

_log = logging.getLogger(__name__)


def build_onnxruntime(model: bytes, config: BuildConfig, ranges: Ranges | None = None) -> Engine:
    """Builds an engine for ONNX Runtime's CPU provider.

    Args:
        model: Content of an ONNX file as `export` writes it.
        config: Precision, input and output, target CPU.
        ranges: What calibration saw, for INT8.

    Returns:
        The engine; ONNX Runtime has loaded it, and runs in INT8 what was to.

    Raises:
        ArtifactError: ONNX Runtime cannot load what was built.
        InputError: The model is not an exported net, or the ranges are not the model's.
        PrecisionError: ONNX Runtime would run a layer in float that was to be INT8.
        UsageError: FP16, which ONNX Runtime's CPU has no kernels for; or INT8 without ranges.
    """
    data, precision = onnxruntime_graph(model, config, ranges)
    _check_achieved(data, precision)
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
        precision=replace(precision, achieved=config.precision),
        spec=exported_spec(parse(model)),
        source=source,
        target={"cpu": resolve_target(config.target_cpu), "gpu": []},
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
    spec = exported_spec(graph_model)
    target = resolve_target(config.target_cpu)
    precision = Precision("fp32", "fp32", layers=dict.fromkeys(_layers(graph_model), "fp32"))
    if config.precision == "int8":
        if ranges is None:
            raise UsageError("INT8 needs ranges", fix="name calibration images or a ranges file")
        check_ranges(ranges, sha256_bytes(model))
        precision = _quantize(graph_model, config, ranges, target)
    if config.io == "image":
        graph_model = passes.run(graph_model, passes.image_io(spec))
    graph_model = passes.run(graph_model, passes.FINAL)
    graph_model.metadata_props[ENGINE_KEY] = f"{config.precision}-{target}"
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
    scheme = OrtScheme(weight_limit=127 if target == "vnni" else 64)
    emit_onnxruntime(model, choose(ranges.histograms, config.method, symmetric=False), layers, scheme, means)
    return Precision("int8", "fp32", config.method, precisions, bias_corrected=bool(means))


def _check_achieved(data: bytes, precision: Precision) -> None:
    """Loads the engine and looks at the graph ONNX Runtime makes of it."""
    asked = {name for name, layer in precision.layers.items() if layer == "int8"}
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as folder:
        optimized = Path(folder, "optimized.onnx")
        OnnxRuntimeBackend(data, optimized_path=optimized).close()
        nodes = onnx.load(optimized).graph.node
    # A fused convolution writes a tensor called as the layer, with a suffix where the name was taken.
    fused = [node.name for node in nodes if node.op_type == "QLinearConv"]
    in_float = [node.name for node in nodes if node.op_type in ("Conv", "FusedConv")]
    if len(fused) != len(asked):
        raise PrecisionError(
            "ONNX Runtime does not run every INT8 layer in INT8",
            got=f"{len(fused)} layers in INT8, in float: {', '.join(in_float)}",
            expected=f"{len(asked)}: {', '.join(sorted(asked))}",
        )
