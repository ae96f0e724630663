"""Simulations of TensorRT engines: ONNX models that compute on a CPU what a typed graph says, to see what it costs.

A plan runs on its GPU alone. What FP16 and INT8 do to the labels can be seen anywhere: by these, `verify` and
`evaluate` hold a typed graph against its gates before there is a GPU. Of speed they say nothing.
"""

from __future__ import annotations

from dataclasses import asdict

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import SIMULATES, EngineFile, Sidecar, Source
from fcn_deploy.engines.engine import BuildConfig, Engine
from fcn_deploy.engines.tensorrt.typed_graph import Base, simulated, typed_graph
from fcn_deploy.files import sha256_bytes
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

SIMULATION = "simulation"

_SILENT = Silent()


def build_simulation(
    model: bytes,
    config: BuildConfig,
    base: Base = "fp16",
    ranges: Ranges | None = None,
    progress: Progress = _SILENT,
) -> Engine:
    """Builds an engine for ONNX Runtime that gives what TensorRT's typed graph of a model says.

    `build.typed.simulate` says what is not reproduced.

    Args:
        model: Content of an ONNX file as `export` writes it, or with Q/DQ of its own.
        config: Precision, input and output.
        base: What INT8 computes in where it is not quantised.
        ranges: What calibration saw: needed for INT8 of a model without Q/DQ; for FP16, what it is audited by.
        progress: Told what stays in another precision.

    Raises:
        ArtifactError: ONNX Runtime cannot load what was built.
        InputError: The model is not an exported net, or the ranges are not the model's.
        UsageError: As `build.typed.typed_graph`.
    """
    typed = typed_graph(model, config, ranges, base)
    for note in typed.notes:
        progress.stage(note)
    data = simulated(typed)
    OnnxRuntimeBackend(data).close()
    source = Source(sha256_bytes(model))
    if ranges is not None:
        source = Source(source.onnx_sha256, sha256_bytes(ranges.dumps()), asdict(ranges.data))
    sidecar = Sidecar(
        engine=EngineFile("", sha256_bytes(data), len(data)),
        backend=OnnxRuntimeBackend.name,
        library=OnnxRuntimeBackend.version,
        io=config.io,
        precision=typed.precision,
        spec=exported_spec(parse(model), stated=config.spec),
        source=source,
        target={"cpu": "generic", "gpu": [], SIMULATES: "tensorrt"},
    )
    return Engine(data, sidecar)
