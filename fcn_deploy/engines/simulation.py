"""Simulations of TensorRT engines: ONNX models that compute on a CPU what a typed graph gives on a GPU.

A TensorRT engine runs on its GPU alone, but what FP16 and INT8 do to the labels can be seen on any machine: `verify`
and `evaluate` hold a simulation against the gates before there is a GPU. It says nothing about speed.

Q/DQ is computed in float: on a CPU without VNNI, integer kernels would saturate. The results of FP16 nodes are rounded
to FP16, infinity included. Two things are not reproduced: the order and precision in which a GPU adds up within a node,
here float32; and which nodes a builder fuses, whose intermediate results it does not round.
"""

from __future__ import annotations

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, SIMULATED, SIMULATES
from fcn_deploy.engines.checks import check_simulation
from fcn_deploy.engines.config import Base, BuildConfig
from fcn_deploy.engines.engine import BuildRecord, Engine, make_engine
from fcn_deploy.engines.tensorrt.typed_graph import TypedGraph, typed_graph
from fcn_deploy.graph.model import ExportedModel, parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime import Backend
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS, Flavor

_SILENT = Silent()


def build_simulation(
    model: ExportedModel,
    config: BuildConfig,
    base: Base = "fp16",
    ranges: Ranges | None = None,
    progress: Progress = _SILENT,
    flavor: Flavor = FLAVORS["tensorrt"],
) -> Engine:
    """Builds an engine for ONNX Runtime that gives what TensorRT's typed graph of a model gives.

    Args:
        model: As `export` writes it, or prequantized.
        config: Precision, input and output.
        base: What INT8 computes in where it is not quantised.
        ranges: What calibration saw: needed for INT8 of a model without Q/DQ; FP16 is audited by them.
        progress: Told what stays in another precision.
        flavor: The library whose graph is simulated.

    Raises:
        ArtifactError: ONNX Runtime cannot load what was built.
        InputError: The ranges belong to another model, or what else `typed_graph` refuses.
        PrecisionError: The model is prequantized, and none of its layers is INT8.
        UsageError: An option that a simulation has no use for, or as `typed_graph`.
    """
    check_simulation(config)
    graph = typed_graph(model, config, ranges, base, flavor=flavor)
    for note in graph.notes:
        progress.stage(note)
    data = simulation_graph(graph)
    OnnxRuntimeBackend(data).close()
    record = BuildRecord(
        backend=OnnxRuntimeBackend.name,
        library=OnnxRuntimeBackend.version,
        precision=graph.precision,
        target={"cpu": "generic", "gpu": [], SIMULATES: flavor.name},
    )
    return make_engine(data, model, ranges, config.io, record)


def simulation_graph(graph: TypedGraph) -> bytes:
    """Returns the content of the ONNX file that simulates a typed graph in ONNX Runtime.

    Args:
        graph: Of any precision.
    """
    model = pipelines.simulation()(parse(graph.data)).model
    model.metadata_props[ENGINE_KEY] = f"{graph.precision.requested}{SIMULATED}"
    return serialize(model, "the engine")


def open_simulation(graph: TypedGraph, *, threads: int | None = None) -> Backend:
    """Opens the simulation of a typed graph on ONNX Runtime's CPU provider.

    Args:
        graph: Of any precision.
        threads: CPU threads; None for ONNX Runtime's default.

    Raises:
        ArtifactError: ONNX Runtime cannot load it.
    """
    return OnnxRuntimeBackend(simulation_graph(graph), threads=threads)
