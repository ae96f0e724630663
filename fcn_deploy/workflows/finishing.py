"""`finish`: on the device, a bundle becomes verified engines; neither torch nor onnx nor a network is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.bundle.expected import Expected, check_values, load_expected, samples_of
from fcn_deploy.bundle.folder import CheckedBundle, check_bundle
from fcn_deploy.bundle.manifest import EXPECTED, PRECISIONS, Bundle
from fcn_deploy.bundle.recorded import RecordedBackend
from fcn_deploy.diagnostics.conditions import timing_conditions
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.errors import ArtifactError, GateError, UsageError
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.evaluation.shipping import recommend_among_passed
from fcn_deploy.files import (
    StrPath,
    as_path,
    check_writable,
    only_writer,
    output_folder,
    real_path,
    write_bytes,
    write_json,
    writing,
)
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.tensorrt.flavor import BUILDERS, find_flavor
from fcn_deploy.runtime.tensorrt.kernel_cache import kernel_cache_path
from fcn_deploy.workflows.device import Target
from fcn_deploy.workflows.measured import recommended, summary_warnings
from fcn_deploy.workflows.on_device import (
    BuiltOnDevice,
    Run,
    build_on_device,
    engine_file,
    log_file,
    measure_on_device,
)
from fcn_deploy.workflows.origins import command_line, origin_of
from fcn_deploy.workflows.parameters import Size, image_size, percentiles
from fcn_deploy.workflows.reporting import remove_report

FinishBackend = Literal["auto", "tensorrt", "tensorrt-rtx"]
_SUMMARY = "summary.json"


def finish(
    bundle: StrPath,
    *,
    output: StrPath | None = None,
    backend: FinishBackend = "auto",
    device: int | None = None,
    shape: str | Size | None = None,
    warmup: float = 200,
    duration: float = 3,
    iterations: int = 10,
    percentile: Sequence[float] | float = (90, 95, 99),
    log: StrPath | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Builds, verifies and times the engines of a bundle on this machine's GPU.

    Every file of the bundle is checked before any is used. Each engine is held against its gate by the results that
    PyTorch gave where the bundle was made. Engines that meet their gates are written, with their sidecars and
    `summary.json`, which says which of them to ship: the fastest.

    Args:
        bundle: The folder that `deploy` wrote.
        output: Folder for the engines; `finished` beside the bundle if None. Engines of an earlier run in it are
            replaced or removed, and its report is removed.
        backend: The library: `tensorrt`, `tensorrt-rtx`, or `auto` for the one that the bundle was made for.
        device: Index of the GPU; 0 if None.
        shape: `HxW` or (height, width) of the image that the times are of; the first of the bundle's images if None.
        warmup: Milliseconds that each engine runs before anything counts.
        duration: Seconds of measuring, all together.
        iterations: Least number of rounds.
        percentile: Percentiles of latency to report.
        log: What the library says while it builds goes into files beside this name: `build.fp16.log` for `build.log`.
        progress: Told of each step.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        ArtifactError: A file of the bundle is missing, added or changed, its format is unknown, or the library does not
            build for this GPU.
        DependencyError: The library, the driver or the GPU is missing.
        GateError: An engine missed its gate, and was not written. Its `report` is the summary.
        InputError: There is no such bundle, the library refuses a graph, or a file cannot be written.
        PrecisionError: A layer does not run in the precision asked for it.
        UsageError: An option is bad, or no engine takes `shape`.

    Example:
        >>> import fcn_deploy as fd
        >>> summary = fd.finish("bundle")
        >>> summary.ship.engine
    """
    given = dict(locals())
    progress, folder = progress or Silent(), as_path(bundle, "bundle")
    timing = BenchmarkConfig(warmup, duration, iterations, percentiles(percentile))
    RuntimeOptions(device=device)
    size = image_size(shape, "shape")
    stated = None if output is None else _outside(folder, as_path(output, "output"), "the engines")
    log_path = None if log is None else _checked_log(folder, as_path(log, "log"))
    names = ("auto", *(flavor.name for flavor in BUILDERS))
    if backend not in names:
        raise UsageError("unknown `backend`", got=repr(backend), expected=", ".join(names))
    conditions = timing_conditions(None)
    with progress.working(f"checking {folder}"):
        checked = check_bundle(folder)
    manifest = checked.manifest
    into = stated or _outside(folder, real_path(folder).with_name("finished"), "the engines")
    _check_shape(checked, size)
    target = Target.find(find_flavor(manifest.backend if backend == "auto" else backend), device)
    if target.flavor.name != manifest.backend:
        progress.stage(f"{target.flavor.name} builds what was made for {manifest.backend}, as you ask")
    examples = load_expected(checked.read(EXPECTED), manifest.io, manifest.images)
    check_values(examples, manifest.io, manifest.spec, manifest.ignore_index)
    _check_images(checked, examples)
    run = Run(target, timing, conditions, None if size is None else _noise(size))
    with output_folder(into), only_writer(into):
        _check_writable(into, manifest, log_path)
        engines = build_on_device(checked, target, progress, log_path)
        samples = progress.track(list(samples_of(examples)), len(examples), "verifying")
        with Segmenter(RecordedBackend(examples, manifest.spec, manifest.io), spec=manifest.spec) as reference:
            built = measure_on_device(checked, engines, run, reference, samples, progress)
        summary = device_summary(checked, built, run, command_line("finish", finish, given, ("bundle",)))
        _publish(into, built, summary, progress)
    require_device_gates(summary)
    return summary


def device_summary(
    bundle: CheckedBundle, built: BuiltOnDevice, run: Run, command: Sequence[str], judged: int | None = None
) -> Summary:
    """Returns the outcome of a deployment whose engines ran on a GPU.

    Args:
        bundle: What they were built from.
        built: The engines, and what was measured of them.
        run: Where and how they ran.
        command: The words of the command line that repeats it.
        judged: The number of images; those of the bundle if None.
    """
    manifest, measured = bundle.manifest, built.measured
    library = next(iter(built.engines.values())).sidecar.library
    return Summary(
        model=manifest.model,
        variant=manifest.spec.variant,
        export_error=manifest.export_error,
        calibration={**manifest.calibration, "judged": judged or manifest.images},
        shape=measured.shape,
        pytorch_ms=None,
        pytorch_miou=measured.pytorch_miou,
        engines=built.summaries,
        truth=measured.truth,
        normalization=manifest.spec.normalization,
        warnings=summary_warnings(measured, manifest.spec, built.summaries),
        conditions=measured.conditions,
        rounds=measured.rounds,
        ship=recommended(measured, built.summaries, recommend_among_passed),
        gpu=run.target.described(library),
        pytorch_class_iou=measured.class_ious.get("pytorch", ()),
        origin=origin_of(manifest.spec, manifest.source, manifest.made_with, command),
    )


def _outside(bundle: Path, path: Path, what: str, option: str = "output") -> Path:
    """Returns a path that is not in the bundle, in which a further file would be found as damage."""
    inside = real_path(path)
    if real_path(bundle) in (inside, *inside.parents):
        raise UsageError(f"{what} cannot go into the bundle", got=str(path), fix=f"name another folder with `{option}`")
    return path


def _checked_log(bundle: Path, log: Path) -> Path:
    """Returns where the logs go, beside which each build has one of its own name."""
    if not log.name or log.name == "..":
        raise UsageError("bad `log`", got=str(log), expected="the name of a file")
    return _outside(bundle, log, "the log", "log")


def _check_images(bundle: CheckedBundle, examples: Sequence[Expected]) -> None:
    profiles = tuple(map(ImageProfile.from_json, bundle.manifest.profiles))
    for height, width in (example.image.shape[:2] for example in examples):
        if not any(profile.takes(ImageShape(1, height, width)) for profile in profiles):
            got, expected = f"{height}x{width}", "; ".join(map(str, profiles))
            raise ArtifactError("an image of the bundle fits no profile of it", got=got, expected=expected)


def _check_shape(bundle: CheckedBundle, size: Size | None) -> None:
    profiles = tuple(map(ImageProfile.from_json, bundle.manifest.profiles))
    if size is not None and not any(profile.takes(ImageShape(1, *size)) for profile in profiles):
        expected = "; ".join(map(str, profiles))
        raise UsageError("no engine of the bundle takes `shape`", got=f"{size[0]}x{size[1]}", expected=expected)


def _noise(size: Size) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def _written(into: Path, variant: str) -> list[Path]:
    """Returns the files that a run may write or remove."""
    engines = [into / engine_file(variant, precision) for precision in PRECISIONS]
    return [*map(sidecar_path, engines), *engines, *map(kernel_cache_path, engines)]


def _check_writable(into: Path, manifest: Bundle, log: Path | None) -> None:
    outputs = [*_written(into, manifest.spec.variant), into / _SUMMARY]
    logs = [] if log is None else [log_file(log, precision) for precision in manifest.graphs]
    for path in (*outputs, *logs):
        check_writable(path)
    taken = set(map(real_path, outputs))
    for path in logs:
        if real_path(path) in taken:
            raise UsageError("the log has the name of an engine", got=str(path), fix="give `log` another name")


def _publish(into: Path, built: BuiltOnDevice, summary: Summary, progress: Progress) -> None:
    """Writes the engines that met their gates, and the summary.

    Engines of an earlier run are replaced one by one, so that on a full disk an engine is left; those of precisions
    that met no gate now are removed.
    """
    passed = {result.precision: result.gate for result in summary.engines if result.gate.passed}
    for path in remove_report(into):  # it would speak of other engines
        progress.stage(f"removed {path} of an earlier run")
    for precision in PRECISIONS:
        path = into / engine_file(summary.variant, precision)
        cache = kernel_cache_path(path)
        if precision not in passed:
            _remove(sidecar_path(path), path, cache)
            continue
        if precision in built.caches:
            write_bytes(cache, built.caches[precision])
        else:
            _remove(cache)
        built.engines[precision].save(path, passed[precision])
        progress.stage(f"wrote {path}")
    write_json(into / _SUMMARY, summary.to_json())
    progress.stage(f"wrote {into / _SUMMARY}")


def _remove(*paths: Path) -> None:
    for path in paths:
        with writing(path):
            path.unlink(missing_ok=True)


def require_device_gates(summary: Summary) -> None:
    """Raises a GateError, whose report is the summary, if an engine missed its gate."""
    if summary.passed:
        return
    failures = [f"{engine.precision}: {failure}" for engine in summary.engines for failure in engine.failures]
    passed = [engine.file for engine in summary.engines if engine.gate.passed]
    missed = [engine.precision.upper() for engine in summary.engines if not engine.gate.passed]
    again = "deploy again with other ranges or gates"
    gates = "its gate, and was" if len(missed) == 1 else "their gates, and were"
    error = GateError(
        f"{' and '.join(missed)} missed {gates} not written",
        got="; ".join(failures),
        fix=f"ship {passed[0]}, which met its gate and was written; or {again}" if passed else again,
    )
    error.report = summary
    raise error
