"""Kernels chosen by time on this machine: direct or Winograd's algorithm, and where INT8 is faster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.tuning import Tuning
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.engine import Engine
from fcn_deploy.engines.onnxruntime import onnxruntime_graph
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, ratio, time_in_turn
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.mixed_precision.layer_times import time_layers
from fcn_deploy.passes import pipelines
from fcn_deploy.passes.winograd import winograd_candidates
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.quantization.selection import int8_layers
from fcn_deploy.runtime.backend import Array
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_SILENT = Silent()
# How long whole engines are timed.
ROUNDS = BenchmarkConfig(duration=5, iterations=7)


@dataclass(frozen=True)
class Clock:
    """How time is measured; tests bring their own.

    Attributes:
        layers: Times layers, as `time_layers`.
        engines: Times whole engines, as `time_in_turn`.
    """

    layers: Callable[..., Mapping[str, Mapping[str, float]]] = time_layers
    engines: Callable[..., Sequence[Timing]] = time_in_turn


_CLOCK = Clock()


@dataclass(frozen=True)
class Tuned:
    """What was chosen by time.

    Attributes:
        config: What to build: with the layers for Winograd's algorithm and, for INT8, the INT8 layers.
        tuning: What was tried, and how long it took.
    """

    config: BuildConfig
    tuning: Tuning

    def recorded(self, engine: Engine) -> Engine:
        """Returns an engine that was built from the configuration, with the tuning in its sidecar."""
        return replace(engine, sidecar=replace(engine.sidecar, tuning=self.tuning))


def tune_kernels(
    model: ExportedModel,
    config: BuildConfig,
    ranges: Ranges | None,
    images: ImageShape,
    cpu: str,
    *,
    threads: int | None = None,
    progress: Progress = _SILENT,
    clock: Clock = _CLOCK,
) -> Tuned:
    """Chooses how an engine for ONNX Runtime's CPU multiplies in each layer, by time alone.

    Layers are timed one by one in ONNX Runtime's profile: direct, by Winograd's algorithm, and in INT8. The engine with
    the fastest choice for each layer is then timed as a whole, in turn with the engine that would be built without
    tuning, and the faster is chosen: conversions between layers cost time that is in no layer's own time. INT8 layers
    that are as fast in FP32 become float, which costs no accuracy; an accuracy budget continues from there.

    Args:
        model: As `export` writes it.
        config: What is to be built.
        ranges: What calibration saw, for INT8.
        images: Shape of the noise to time on.
        cpu: What the sidecar calls this machine's processor.
        threads: CPU threads; None for all cores.
        progress: Told of what was timed.
        clock: How time is measured.

    Raises:
        ArtifactError: ONNX Runtime cannot run the model at that shape.
        InputError: The ranges belong to another model.
    """
    image = noise(images)
    choices = kernel_choices(model, config, ranges, images, threads=threads, progress=progress, clock=clock)
    runs = {
        name: OnnxRuntimeBackend(onnxruntime_graph(model, replace(each, io="image"), ranges)[0], threads=threads)
        for name, each in choices.items()
    }
    with progress.working(f"timing {', '.join(runs)}"):
        timings = clock.engines({name: _run(backend, image) for name, backend in runs.items()}, ROUNDS)
    for backend in runs.values():
        backend.close()
    chosen = fastest(timings).name
    say_choice(timings, chosen, images, progress)
    return Tuned(choices[chosen], record_choice(timings, chosen, images, cpu, threads))


def fastest(timings: Iterable[Timing]) -> Timing:
    """Returns the timing with the least median."""
    return min(timings, key=lambda timing: timing.median)


def say_choice(timings: Sequence[Timing], chosen: str, images: ImageShape, progress: Progress) -> None:
    """Tells which of the candidates that were timed was chosen, and why."""
    listed = ", ".join(f"{timing.name} {timing.median:.1f} ms" for timing in timings)
    why = "is the fastest of" if chosen == fastest(timings).name else "is kept, because no other is clearly faster:"
    progress.stage(f"tuned at {images}: {chosen} {why} {listed}")


def record_choice(timings: Sequence[Timing], chosen: str, images: ImageShape, cpu: str, threads: int | None) -> Tuning:
    """Returns what a sidecar says of a choice by time.

    Args:
        timings: Of the candidates, measured in turn.
        chosen: The name of one of them.
        images: The shape that they were timed on.
        cpu: What the sidecar calls this machine's processor.
        threads: CPU threads; None for all cores.
    """
    milliseconds = {timing.name: timing.median for timing in timings}
    (taken,) = (timing for timing in timings if timing.name == chosen)
    ratios = {timing.name: ratio(timing, taken) for timing in timings}
    return Tuning(str(images), threads, cpu, milliseconds, chosen, ratios)


def noise(images: ImageShape) -> NDArray[np.uint8]:
    """Returns images of noise to time on, uint8 [N, H, W, 3]; the same ones every time."""
    shape = (images.batch, images.height, images.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def kernel_choices(
    model: ExportedModel,
    config: BuildConfig,
    ranges: Ranges | None,
    images: ImageShape,
    *,
    threads: int | None = None,
    progress: Progress = _SILENT,
    clock: Clock = _CLOCK,
) -> dict[str, BuildConfig]:
    """Times layers one by one, and returns what is worth being timed as a whole; see `tune_kernels`.

    Returns:
        Configurations by name; equal ones stand there once.
    """
    with progress.working(f"timing the layers at {images}"):
        timer = functools.partial(clock.layers, feeds={"image": noise(images)}, threads=threads)
        return _choices(model, config, ranges, timer)


def _run(backend: OnnxRuntimeBackend, image: Array) -> Callable[[], object]:
    return lambda: backend.infer({"image": image})


def _choices(
    model: ExportedModel,
    config: BuildConfig,
    ranges: Ranges | None,
    timer: Callable[..., Mapping[str, Mapping[str, float]]],
) -> dict[str, BuildConfig]:
    """What to time as a whole, by name."""
    rewritten = pipelines.onnxruntime_cpu(None, winograd=())(model.copy()).model.graph
    every, by_channels = winograd_candidates(rewritten, least_channels=1), winograd_candidates(rewritten)
    graphs = {
        "direct": onnxruntime_graph(model, BuildConfig("fp32", winograd=()))[0],
        "winograd": onnxruntime_graph(model, BuildConfig("fp32", winograd=every))[0],
    }
    quantized: tuple[str, ...] = ()
    if config.precision == "int8":
        quantized = tuple(int8_layers(model.graph, config.int8_layers, transposed=True))
        graphs["int8"] = onnxruntime_graph(model, replace(config, io="image", winograd=()), ranges)[0]
    times = timer(graphs, {*every, *quantized})
    faster = tuple(name for name in every if _faster(times, name, "winograd", "direct"))
    if config.precision != "int8":
        ways = {"direct": (), "by channels": tuple(name for name in every if name in by_channels), "by layer": faster}
        distinct = {layers: name for name, layers in ways.items()}  # of equal choices the last one is kept
        return {name: replace(config, winograd=layers) for layers, name in distinct.items()}
    kept = tuple(
        name for name in quantized if not _faster(times, name, "winograd" if name in faster else "direct", "int8")
    )
    whole = replace(config, int8_layers=quantized, winograd=faster)
    if not kept or kept == quantized:  # an INT8 engine without an INT8 layer would be FP32 under another name
        return {"INT8": whole}
    return {"INT8": whole, "INT8 where it is faster": replace(whole, int8_layers=kept)}


def _faster(times: Mapping[str, Mapping[str, float]], layer: str, one: str, other: str) -> bool:
    """Whether a layer is known to take less time one way than another."""
    first, second = times[one].get(layer), times[other].get(layer)
    return first is not None and second is not None and first < second
