"""`tune` without a backend: each library that is here builds what is asked for, and the fastest engine is taken."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.diagnostics.machine import this_machine
from fcn_deploy.engines.checks import ONNXRUNTIME, OPENVINO
from fcn_deploy.engines.engine import Engine
from fcn_deploy.engines.trial import trial_shapes, try_engine
from fcn_deploy.errors import ArtifactError, DependencyError, FcnDeployError, GateError, PrecisionError, UsageError
from fcn_deploy.evaluation.latency import Timing, ratio
from fcn_deploy.evaluation.shipping import in_figures
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.cpu import exact_8_bits
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.workflows.backends import Job
from fcn_deploy.workflows.decisions import SearchOptions, decide_precisions
from fcn_deploy.workflows.references import opened

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel
    from fcn_deploy.mixed_precision.kernel_tuning import Clock

_log = logging.getLogger(__name__)

# Among which `tune` chooses, in the order in which they are tried.
LIBRARIES = (ONNXRUNTIME, OPENVINO)


def jobs_here(job_for: Callable[[str], Job], progress: Progress) -> list[Job]:
    """Returns a job for each library that can build what is asked for, and run it on this machine.

    Args:
        job_for: Makes the job of a library.
        progress: Told which libraries take part, and which are left out and why.

    Raises:
        FcnDeployError: None takes part; the error is the first library's.
    """
    jobs: list[Job] = []
    errors: dict[str, FcnDeployError] = {}
    for library in LIBRARIES:
        try:
            job = job_for(library)
            job.check()
            _check_runs_here(job)
        except (ArtifactError, DependencyError, UsageError) as refused:
            errors[library] = refused
        else:
            jobs.append(job)
    if not jobs:
        raise errors[LIBRARIES[0]]
    for library, error in errors.items():
        progress.stage(_left_out(library, error))
    progress.stage(f"backend: by time, among {' and '.join(job.backend for job in jobs)}")
    return jobs


def _check_runs_here(job: Job) -> None:
    if job.config.target_cpu == "vnni" and not exact_8_bits():
        fix = 'add `target_cpu="generic"`'
        raise ArtifactError("its engine would be for CPUs with VNNI, which this one lacks", fix=fix)


@dataclass(frozen=True, eq=False)
class Tune:
    """What is the same for every candidate.

    Attributes:
        model: The exported model.
        ranges: What calibration saw, for INT8.
        search: What to decide on images.
        held_out: Calibration images that were not observed.
        images: The shape to time on.
        threads: CPU threads; None for the libraries' default.
        progress: Told of each candidate and of the choice.
    """

    model: ExportedModel
    ranges: Ranges | None
    search: SearchOptions
    held_out: ImageFolder | None
    images: ImageShape
    threads: int | None
    progress: Progress

    def candidates(self, job: Job, clock: Clock) -> dict[str, Job]:
        """Returns what to build with one library, by name: with ONNX Runtime there may be several, of other kernels."""
        if not job.is_onnxruntime:
            based = " and BF16" if job.base == "bf16" else ""
            return {f"{job.backend} {job.config.precision.upper()}{based}": job}
        from fcn_deploy.mixed_precision.kernel_tuning import kernel_choices

        choices = kernel_choices(
            *(self.model, job.config, self.ranges, self.images),
            threads=self.threads,
            progress=self.progress,
            clock=clock,
        )
        return {f"{job.backend} {name}": replace(job, config=config) for name, config in choices.items()}

    def build(self, name: str, job: Job) -> Engine:
        """Builds a candidate, after what is to be decided on images has been decided for it, and runs it once."""
        from fcn_deploy.mixed_precision.decision import Decision

        decision = Decision(job.config)
        if self.search != SearchOptions() and self.ranges is not None:
            self.progress.stage(f"{name}: deciding on images")
            decision = decide_precisions(
                *(self.model, job, self.ranges, self.search, self.held_out),
                threads=self.threads,
                progress=self.progress,
            )
        engine = decision.recorded(replace(job, config=decision.config).build(self.model, self.ranges, self.progress))
        try_engine(engine, trial_shapes(self.images))
        return engine


def build_fastest(tune: Tune, jobs: Sequence[Job], clock: Clock | None = None) -> Engine:
    """Builds an engine for each library, times them in turn from images to labels, and returns the one to take.

    A candidate that its library cannot build, or that does not keep the accuracy budget, is left out, and that is said.
    Beside INT8 engines run engines in FP32, which are not taken: if INT8 is not faster, a warning says so.

    Args:
        tune: What to build them from.
        jobs: One for each library.
        clock: How time is measured; tests bring their own.

    Raises:
        ArtifactError: No candidate can be built or run.
        GateError: No candidate keeps the accuracy budget.
        PrecisionError: No library runs the layers in the precision asked for.
    """
    from fcn_deploy.mixed_precision.kernel_tuning import ROUNDS, Clock, noise, record_choice, say_choice

    clock = clock or Clock()
    candidates = {name: each for job in jobs for name, each in tune.candidates(job, clock).items()}
    engines = _built(candidates, tune.build, tune.progress)
    floats = _in_fp32(tune, jobs)
    image = noise(tune.images)
    contestants = {**engines, **floats}
    with opened(list(contestants.values()), RuntimeOptions(threads=tune.threads)) as segmenters:
        runs = {name: functools.partial(each, image) for name, each in zip(contestants, segmenters, strict=True)}
        with tune.progress.measuring(f"timing {', '.join(contestants)}") as show:
            timings = clock.engines(runs, ROUNDS, show)
    of_engines = [timing for timing in timings if timing.name in engines]
    name = choose(of_engines, {name: engine.sidecar.backend for name, engine in engines.items()})
    say_choice(of_engines, name, tune.images, tune.progress)
    tuning = record_choice(timings, name, tune.images, this_machine().cpu.name, tune.threads)
    _compare(name, [timing for timing in timings if timing.name in floats], timings)
    return replace(engines[name], sidecar=replace(engines[name].sidecar, tuning=tuning))


def _built(jobs: Mapping[str, Job], build: Callable[[str, Job], Engine], progress: Progress) -> dict[str, Engine]:
    """Builds what can be built, each engine once: for several candidates the same layers may have been decided."""
    engines: dict[str, Engine] = {}
    errors: list[FcnDeployError] = []
    for name, job in jobs.items():
        try:
            engine = build(name, job)
        except (ArtifactError, GateError, PrecisionError) as error:
            errors.append(error)
            progress.stage(_left_out(name, error))
            continue
        if all(engine.data != other.data for other in engines.values()):
            engines[name] = engine
    if jobs and not engines:
        raise errors[0]
    return engines


def _in_fp32(tune: Tune, jobs: Sequence[Job]) -> dict[str, Engine]:
    """Builds for each library what INT8 has to be faster than; nothing if INT8 is not asked for."""
    in_fp32 = {
        f"{job.backend} FP32": replace(job, config=job.config.as_float("fp32"), base=None)
        for job in jobs
        if job.config.precision == "int8"
    }
    return _built(in_fp32, lambda name, job: job.build(tune.model, None, tune.progress), tune.progress)


def _compare(chosen: str, floats: Sequence[Timing], timings: Sequence[Timing]) -> None:
    """Warns if the chosen INT8 engine is not faster than the fastest in FP32."""
    from fcn_deploy.mixed_precision.kernel_tuning import fastest

    if not floats:
        return
    in_fp32, (taken,) = fastest(floats), (timing for timing in timings if timing.name == chosen)
    found = ratio(taken, in_fp32)
    if not found.high < 1:
        outcome = "slower" if found.low > 1 else "not faster"
        _log.warning(
            'INT8 is %s than FP32 here: %s against %s, %s; `precision="fp32"` costs no accuracy',
            *(outcome, chosen, in_fp32.name, in_figures(found)),
        )


def choose(timings: Sequence[Timing], libraries: Mapping[str, str]) -> str:
    """Returns the name of the engine to take.

    Within a library that is the one with the least median. Another library is one more thing that the device has to
    have, so its engine is taken only if it is faster in three rounds of four.

    Args:
        timings: Measured in turn.
        libraries: By name of the timing; those that come first are preferred.
    """
    from fcn_deploy.mixed_precision.kernel_tuning import fastest

    best, *others = (
        fastest(timing for timing in timings if libraries[timing.name] == library)
        for library in dict.fromkeys(libraries.values())
    )
    for other in others:
        if ratio(other, best).high < 1:
            best = other
    return best.name


def _left_out(what: str, error: FcnDeployError) -> str:
    got = "" if error.got is None else f", got {error.got}"
    return f"{what} is left out: {error.what}{got}"
