"""`benchmark`: the latency of engines from image to labels, measured in turn."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import SIMULATES
from fcn_deploy.diagnostics.conditions import timing_conditions, timing_warnings
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, ratio, time_in_turn
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.reporting.siblings import FLOATS, Siblings, find_siblings
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.backend import Provider
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.tensorrt.settings import Specialization
from fcn_deploy.text import printable
from fcn_deploy.workflows.parameters import image_shape, outputs, padding, percentiles
from fcn_deploy.workflows.references import NetCode, Runnable, check_runnables, key_of, name_of, opened

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The latencies of several engines, measured in turn.

    Attributes:
        shape: Of the batch of images.
        conditions: Threads, load and processor, before anything was measured.
        timings: One for each engine; first the one that the ratios are against.
        siblings: For each pair of an INT8 and a float engine of one model and library, which is faster.
        percentiles: Of latency, to report.
        warnings: What makes the times doubtful, a sentence each.
    """

    shape: ImageShape
    conditions: Conditions
    timings: tuple[Timing, ...]
    siblings: tuple[Siblings, ...]
    percentiles: tuple[float, ...]
    warnings: tuple[str, ...] = ()

    @property
    def threads(self) -> int | None:
        """CPU threads; None for the library's default."""
        return self.conditions.threads

    def __repr__(self) -> str:
        times = ", ".join(f"{timing.name} {timing.median:.1f} ms" for timing in self.timings)
        return printable(f"Benchmark({self.shape}, {times})")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        pairs = {
            f"int8_and_{precision}": [pair.to_json() for pair in self.siblings if pair.precision == precision]
            for precision in FLOATS
        }
        engines = [self._row(timing) for timing in self.timings]
        facts = {"shape": str(self.shape), **self.conditions.to_json(), "warnings": list(self.warnings)}
        return {**facts, "engines": engines, **pairs}

    def _row(self, timing: Timing) -> dict[str, Any]:
        return {
            "name": timing.name,
            "rounds": len(timing.latencies),
            "median_ms": timing.median,
            "min_ms": float(timing.latencies.min()),
            "percentiles_ms": {f"{share:g}": timing.percentile(share) for share in self.percentiles},
            "images_per_second": timing.throughput(self.shape.batch),
            "ratio": asdict(ratio(timing, self.timings[0])),
        }


def benchmark(
    engines: Iterable[Runnable] | Runnable,
    *,
    shape: str | ImageShape,
    vs: Runnable | None = None,
    warmup: float = 200,
    duration: float = 3,
    iterations: int = 10,
    percentile: Sequence[float] | float = (90, 95, 99),
    model: str | None = None,
    size_divisor: SizeDivisor | None = None,
    pad_mode: PadMode | None = None,
    logits: str | int | None = None,
    resize_logits: ResizeMode | None = None,
    weights_key: str | None = None,
    weights_prefix: str | None = None,
    weights_ignore: Sequence[str] | str = (),
    threads: int | None = None,
    provider: Provider | None = None,
    device: int | None = None,
    device_name: str | None = None,
    fast_math: bool = False,
    allow_host_code: bool = False,
    contexts: int | None = None,
    graphs: int | None = None,
    specialization: Specialization | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Measures the latency of engines from uint8 image to labels, in turn, round by round.

    Args:
        engines: Files, what `build_engine` or `export` gave, or `pytorch:` and the paths of checkpoints.
        shape: Of the batch of images: `NxHxW` or `HxW`.
        vs: What the ratios are against; the first engine if None.
        warmup: Milliseconds that each runs before anything counts.
        duration: Seconds of measuring, all together.
        iterations: Least number of rounds.
        percentile: Percentiles of latency to report.
        model: What makes the net of a checkpoint among them if it is a custom net.
        size_divisor: How that net is padded.
        pad_mode: Likewise.
        logits: Which of its outputs are the logits.
        resize_logits: How they are resized.
        weights_key: The entry of a checkpoint among them that holds the weights.
        weights_prefix: Only its tensors under this prefix are taken, without it.
        weights_ignore: Globs; its entries that match one are left out.
        threads: CPU threads; the library's default if None.
        provider: What ONNX Runtime runs on: `cpu` (the default) or `cuda`.
        device: Index of the GPU.
        device_name: What OpenVINO runs on: `CPU`, `GPU` or `NPU`; the CPU if None.
        fast_math: Lets ONNX Runtime multiply matrices of FP32 in BF16, on a 64-bit Arm CPU that has it.
        allow_host_code: Lets TensorRT plans run code on the host.
        contexts: How many calls on a TensorRT plan run at the same time; 8 if None.
        graphs: How many CUDA graphs each of them keeps; 4 if None, and none with 0.
        specialization: When TensorRT-RTX compiles kernels for a shape: `lazy`, in the background; `eager`, before its
            first run; or `none`. If None, `eager` for plans of fixed shapes, else `lazy`.
        progress: Told the share of the rounds that is done.

    Raises:
        ArtifactError: An engine does not fit this machine or its sidecar.
        DependencyError: A library, a driver or a GPU is missing.
        InputError: A file cannot be read, or the images do not fit.
        UsageError: Options do not go together, or an engine is a simulation, whose time means nothing.

    Example:
        >>> import fcn_deploy as fd
        >>> times = fd.benchmark(["fcn8s.int8.onnx", "fcn8s.onnx"], shape="512x512", threads=2)
    """
    config = BenchmarkConfig(warmup, duration, iterations, percentiles(percentile))
    wanted = image_shape(shape)
    contestants = _distinct([*([vs] if vs is not None else []), *_listed(engines)])
    code = NetCode(
        model,
        padding(model, size_divisor, pad_mode),
        outputs(model, logits, resize_logits),
        weights_key,
        weights_prefix,
        weights_ignore,
    )
    runtime = RuntimeOptions(
        threads=threads,
        provider=provider,
        device=device,
        device_name=device_name,
        fast_math=fast_math,
        allow_host_code=allow_host_code,
        contexts=contexts,
        graphs=graphs,
        specialization=specialization,
    )
    check_runnables(contestants, runtime, code)
    conditions = timing_conditions(threads)
    warnings = timing_warnings(conditions)
    for warning in warnings:
        _log.warning("%s", warning)
    images = np.random.default_rng(0).integers(0, 256, (*astuple(wanted), 3), dtype=np.uint8)
    names = _short_names(contestants)
    with opened(contestants, runtime, code, progress) as segmenters:
        by_name = dict(zip(names, segmenters, strict=True))
        _refuse_simulations(by_name)
        runs = {name: functools.partial(segmenter, images) for name, segmenter in by_name.items()}
        text = f"measuring {wanted}, {conditions}"
        with (progress or Silent()).measuring(text) as show:
            timings = time_in_turn(runs, config, show)
        siblings = find_siblings({name: each.sidecar for name, each in by_name.items()}, timings)
    return Benchmark(wanted, conditions, tuple(timings), tuple(siblings), config.percentiles, warnings)


def _listed(engines: Iterable[Runnable] | Runnable) -> list[Runnable]:
    listed = list(engines) if isinstance(engines, Iterable) and not isinstance(engines, str) else [engines]
    if not listed:
        raise UsageError("benchmark needs engines", got="none", expected="`engines`, one or more")
    return listed


def _distinct(runnables: Iterable[Runnable]) -> list[Runnable]:
    """Returns each engine once."""
    return list({key_of(each): each for each in runnables}.values())


def _short_names(runnables: Sequence[Runnable]) -> list[str]:
    """Returns file names if they differ, else whole paths; objects with the same name get numbers."""
    whole = [name_of(each) for each in runnables]
    short = [Path(name).name for name in whole]
    names = short if len(set(short)) == len(short) else whole
    counts, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if counts[name] == 1 else f"{name} ({seen[name]})")
    return numbered


def _refuse_simulations(segmenters: dict[str, Segmenter]) -> None:
    for name, segmenter in segmenters.items():
        if segmenter.sidecar is not None and SIMULATES in segmenter.sidecar.target:
            raise UsageError(f"{name} is a simulation, whose time means nothing", fix="leave it out")
