"""The device's half of a deployment: a bundle's typed graphs become engines, which are verified and timed in turn."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.summary import EngineSummary
from fcn_deploy.bundle.folder import CheckedBundle
from fcn_deploy.bundle.manifest import Bundle, graph_file
from fcn_deploy.engines.checks import check_tensorrt
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.engine import BuildRecord, Engine, engine_from
from fcn_deploy.engines.tensorrt.builder import build_plan
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.evaluation.comparison import Sample, compare
from fcn_deploy.evaluation.gates import Criterion, check_gate
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.files import is_file, read_bytes, temporary_folder
from fcn_deploy.progress import Progress
from fcn_deploy.reporting.gallery import WorstImages
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.kernel_cache import kernel_cache_path
from fcn_deploy.workflows.device import Target
from fcn_deploy.workflows.measured import Measured, engine_summary, time_engines


@dataclass(frozen=True, eq=False)
class Run:
    """How engines are run on the device.

    Attributes:
        target: The GPU and the library.
        timing: How long times are measured.
        conditions: That they are measured under.
        image: The image that the times are of, uint8 [H, W, 3]; None for the first that is verified on.
    """

    target: Target
    timing: BenchmarkConfig
    conditions: Conditions
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class BuiltOnDevice:
    """The engines of a bundle, built, verified and timed.

    Attributes:
        engines: By precision.
        caches: The kernels that the library compiled for an engine while it ran, by precision; empty for libraries that
            do not keep them.
        measured: What was measured.
        summaries: Of the engines, in their order.
    """

    engines: Mapping[str, Engine]
    caches: Mapping[str, bytes]
    measured: Measured
    summaries: tuple[EngineSummary, ...]

    def passed(self, precision: str) -> bool:
        """Returns whether an engine met its gate."""
        return any(each.precision == precision and each.gate.passed for each in self.summaries)


def engine_file(variant: str, precision: str) -> str:
    """Returns the name of an engine that is built on the device."""
    return f"{variant}.{precision}.engine"


def log_file(log: Path, precision: str) -> Path:
    """Returns the name of the log of one build: `build.fp16.log` for `build.log`."""
    return log.with_name(f"{log.stem}.{precision}{log.suffix}")


def build_on_device(
    bundle: CheckedBundle, target: Target, progress: Progress, log: Path | None = None
) -> dict[str, Engine]:
    """Builds the engines of a bundle, by precision.

    Args:
        bundle: The bundle.
        target: The GPU and the library.
        progress: Told how far each build is.
        log: What the library says goes into a file beside this name, with the precision before its suffix.

    Raises:
        ArtifactError: A file of the bundle has changed since it was checked.
        DependencyError: The library cannot be loaded.
        InputError: The library refuses a graph or cannot build it, or the log cannot be written.
        PrecisionError: A layer does not run in the precision asked for it.
    """
    manifest, engines = bundle.manifest, {}
    for precision in manifest.graphs:
        content = bundle.read(graph_file(precision))
        said = None if log is None else log_file(log, precision)
        data, record = _build(manifest, precision, content, target.flavor, target, progress, said)
        engines[precision] = engine_from(data, manifest.spec, manifest.source, manifest.io, record)
    return engines


def try_builder(manifest: Bundle, graphs: Mapping[str, bytes], flavor: Flavor, progress: Progress) -> None:
    """Builds what a device will build, on a machine without a GPU, and keeps nothing: refusals show here.

    Args:
        manifest: Of the bundle that is to be written.
        graphs: Its typed graphs, by precision.
        flavor: A library that builds without a GPU.
        progress: Told how far each build is, and what the builder says of the plan.

    Raises:
        DependencyError: The library cannot be loaded.
        InputError: It refuses a graph or cannot build it.
    """
    for precision, content in graphs.items():
        _build(manifest, precision, content, flavor, None, progress, None)


def _build(
    manifest: Bundle,
    precision: str,
    content: bytes,
    flavor: Flavor,
    target: Target | None,
    progress: Progress,
    log: Path | None,
) -> tuple[bytes, BuildRecord]:
    """Builds the plan of a typed graph; for the library's default GPUs without a target."""
    graph, gpus = manifest.graphs[precision], find_gpus
    if target is not None:
        gpus = functools.partial(_alone, target.gpu)
    config = BuildConfig(graph.precision.requested, manifest.io)  # type: ignore[arg-type]  # checked when made
    options = TensorRTConfig(
        tuple(map(ImageProfile.from_json, manifest.profiles)),
        compute_capabilities=() if target is None else target.compute_capabilities,
    )
    return build_plan(
        flavor,
        content,
        graph.precision,
        manifest.io,
        options,
        architectures=check_tensorrt(flavor, config, options, gpus),
        min_size=manifest.spec.min_size,
        progress=progress,
        log=log,
        gpus=gpus,
        on_device=nullcontext if target is None else target.current,
    )


def _alone(gpu: Gpu) -> tuple[Gpu, ...]:
    return (gpu,)


def measure_on_device(
    bundle: CheckedBundle,
    engines: Mapping[str, Engine],
    run: Run,
    reference: Segmenter,
    samples: Iterable[Sample],
    progress: Progress,
    worst: WorstImages | None = None,
) -> BuiltOnDevice:
    """Verifies engines against a reference and times them in turn; nothing is decided yet.

    Args:
        bundle: What they were built from.
        engines: By precision.
        run: Where and how they run.
        reference: What they should agree with.
        samples: Images with their ground truth, or with None.
        progress: Told how far it is.
        worst: Keeps the images on which they agree the least; None if nothing is kept.

    Raises:
        ArtifactError: The library or the driver cannot run an engine.
        InputError: An image fits no profile.
    """
    manifest, caches = bundle.manifest, dict[str, bytes]()
    first = _First(samples)
    with temporary_folder() as folder:
        paths = {precision: folder / engine_file("net", precision) for precision in engines}
        for precision, engine in engines.items():
            engine.save(paths[precision])
        with ExitStack() as stack:
            opened = {
                precision: stack.enter_context(Segmenter(path, device=run.target.gpu.index))
                for precision, path in paths.items()
            }
            watch = None if worst is None else worst.add
            found = compare(reference, list(opened.values()), first, manifest.ignore_index, watch=watch)
            image = first.image if run.image is None else run.image
            timings = time_engines(opened, image, run.timing, progress)
        # Written when the engines were closed.
        for precision, path in paths.items():
            if is_file(kernel_cache_path(path)):
                caches[precision] = read_bytes(kernel_cache_path(path))
    kept = {} if worst is None else worst.result()
    measured = Measured.of((image.shape[0], image.shape[1]), found, engines, timings, run.conditions, kept)
    summaries = tuple(_summary(bundle, precision, engine, measured, run) for precision, engine in engines.items())
    return BuiltOnDevice(engines, caches, measured, summaries)


def _summary(bundle: CheckedBundle, precision: str, engine: Engine, measured: Measured, run: Run) -> EngineSummary:
    """Returns what was measured of an engine, held against its gate."""
    graph = bundle.manifest.graphs[precision]
    criteria = tuple(map(Criterion.parse, graph.criteria))
    result = check_gate(precision, measured.parities[precision], measured.drops[precision], criteria)
    file = engine_file(bundle.manifest.spec.variant, precision)
    summary = engine_summary(file, engine, measured, result, run.timing)
    return replace(summary, simulated_agreement=graph.simulated.parity.agreement)


class _First:
    """Passes samples on, and keeps the first image.

    Args:
        samples: One or more.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples
        self._image: NDArray[np.uint8] | None = None

    def __iter__(self) -> Iterator[Sample]:
        for image, truth in self._samples:
            if self._image is None:
                self._image = image
            yield image, truth

    @property
    def image(self) -> NDArray[np.uint8]:
        """The first image, once the samples have been read."""
        assert self._image is not None
        return self._image
