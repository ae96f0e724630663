"""Kernels chosen by measuring on this machine: direct or Winograd's algorithm, and where INT8 is worth it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.tuning import Tuning
from fcn_deploy.engines.engine import BuildConfig, Engine
from fcn_deploy.engines.onnxruntime import onnxruntime_graph
from fcn_deploy.evaluation.latency import BenchmarkConfig, time_in_turn
from fcn_deploy.graph.model import parse
from fcn_deploy.mixed_precision.layer_times import time_layers
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.winograd import winograd_candidates
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.quantization.selection import int8_layers
from fcn_deploy.runtime.backend import Array
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_SILENT = Silent()
_ROUNDS = BenchmarkConfig(duration=5, iterations=7)


@dataclass(frozen=True)
class Tuned:
    """What measuring has chosen.

    Attributes:
        config: What to build: with the layers for Winograd's algorithm and, for INT8, the INT8 layers.
        tuning: What was tried, and how long it took.
    """

    config: BuildConfig
    tuning: Tuning

    def recorded(self, engine: Engine) -> Engine:
        """Returns an engine built from the configuration, whose sidecar says how it was tuned."""
        return replace(engine, sidecar=replace(engine.sidecar, tuning=self.tuning))


def tune(
    model: bytes,
    config: BuildConfig,
    ranges: Ranges | None,
    images: ImageShape,
    cpu: str,
    *,
    threads: int | None = None,
    progress: Progress = _SILENT,
) -> Tuned:
    """Chooses how an engine for ONNX Runtime's CPU multiplies in each layer, by time alone.

    Layers are timed one by one in ONNX Runtime's profile: direct, by Winograd's algorithm, and in INT8. What that would
    choose is then timed as a whole beside what would be built without tuning, in turn, and the faster is chosen: a
    layer's surroundings have a price that is in no layer's own time. An INT8 layer that FP32 is as fast in is thereby
    given back, where it costs no accuracy; a budget goes on from there.

    Args:
        model: Content of an ONNX file as `export` writes it.
        config: What is to be built.
        ranges: What calibration saw, for INT8.
        images: Shape of the noise to time on.
        cpu: What to call this machine's processor in the sidecar.
        threads: CPU threads; all cores where None.
        progress: Told of what was timed.

    Raises:
        ArtifactError: ONNX Runtime cannot run the model at that shape.
        InputError: The model is not an exported net, or the ranges are not the model's.
    """
    image = np.random.default_rng(0).integers(0, 256, (images.batch, images.height, images.width, 3), dtype=np.uint8)
    with progress.working(f"timing the layers at {images}"):
        candidates = _candidates(model, config, ranges, {"image": image}, threads)
    runs = {
        name: OnnxRuntimeBackend(onnxruntime_graph(model, replace(each, io="image"), ranges)[0], threads=threads)
        for name, each in candidates.items()
    }
    with progress.working(f"timing {', '.join(runs)}"):
        timings = time_in_turn({name: _run(backend, image) for name, backend in runs.items()}, _ROUNDS)
    for backend in runs.values():
        backend.close()
    milliseconds = {timing.name: timing.median for timing in timings}
    chosen = min(milliseconds, key=milliseconds.__getitem__)
    listed = ", ".join(f"{name} {time:.1f} ms" for name, time in milliseconds.items())
    progress.stage(f"tuned at {images}: {chosen}, of {listed}")
    return Tuned(candidates[chosen], Tuning(str(images), threads, cpu, milliseconds, chosen))


def _run(backend: OnnxRuntimeBackend, image: Array) -> Callable[[], object]:
    return lambda: backend.infer({"image": image})


def _candidates(
    model: bytes,
    config: BuildConfig,
    ranges: Ranges | None,
    feeds: Mapping[str, Array],
    threads: int | None,
) -> dict[str, BuildConfig]:
    """What to time as a whole, by name."""
    graph = parse(model)
    rewritten = pipelines.onnxruntime_cpu(None, winograd=())(parse(model)).model.graph
    every, by_channels = winograd_candidates(rewritten, least_channels=1), winograd_candidates(rewritten)
    plain = BuildConfig("fp32", spec=config.spec)
    models = {
        "direct": onnxruntime_graph(model, replace(plain, winograd=()))[0],
        "winograd": onnxruntime_graph(model, replace(plain, winograd=every))[0],
    }
    quantized: tuple[str, ...] = ()
    if config.precision == "int8":
        quantized = tuple(int8_layers(graph.graph, config.int8_layers))
        models["int8"] = onnxruntime_graph(model, replace(config, io="image", winograd=()), ranges)[0]
    times = time_layers(models, {*every, *quantized}, feeds, threads=threads)
    faster = tuple(name for name in every if _faster(times, name, "winograd", "direct"))
    if config.precision != "int8":
        ways = {"direct": (), "by channels": tuple(name for name in every if name in by_channels), "by layer": faster}
        distinct = {layers: name for name, layers in ways.items()}  # of two that are the same, the name of the last
        return {name: replace(config, winograd=layers) for layers, name in distinct.items()}
    kept = tuple(
        name for name in quantized if not _faster(times, name, "winograd" if name in faster else "direct", "int8")
    )
    whole = replace(config, int8_layers=quantized, winograd=faster)
    if not kept or kept == quantized:  # with none left, it would be an FP32 engine by another name
        return {"INT8": whole}
    return {"INT8": whole, "INT8 where it is faster": replace(whole, int8_layers=kept)}


def _faster(times: Mapping[str, Mapping[str, float]], layer: str, one: str, other: str) -> bool:
    """Whether a layer takes less time one way than another; of what the profile does not tell nothing is claimed."""
    first, second = times[one].get(layer), times[other].get(layer)
    return first is not None and second is not None and first < second
