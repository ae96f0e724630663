"""`build_engine`: an exported model becomes the file that a device runs, and its sidecar."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import Io, sidecar_path
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.diagnostics.conditions import timing_conditions, timing_warnings
from fcn_deploy.diagnostics.machine import this_machine
from fcn_deploy.engines.checks import ONNXRUNTIME, OPENVINO
from fcn_deploy.engines.config import (
    AUTO_METHOD,
    QUANTIZED,
    Base,
    BuildConfig,
    RequestedPrecision,
    TargetCpu,
    default_method,
    default_target,
)
from fcn_deploy.engines.engine import Engine
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.profiles import ImageProfile, pair_shapes
from fcn_deploy.engines.trial import trial_shapes, try_engine
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.gates import Criterion
from fcn_deploy.files import StrPath, as_path, check_writable
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.quantization.rounding import Rounding
from fcn_deploy.runtime.options import check_threads
from fcn_deploy.workflows.backends import Job, choose_backend, chooses_library
from fcn_deploy.workflows.decisions import SearchOptions, decide_precisions
from fcn_deploy.workflows.image_sizes import check_image_sizes, check_stated_size
from fcn_deploy.workflows.models import check_model, exported_model
from fcn_deploy.workflows.parameters import (
    Size,
    check_distinct,
    criterion,
    image_folder,
    image_shape,
    image_size,
)
from fcn_deploy.workflows.ranges_source import RangesSource
from fcn_deploy.workflows.samples import LabelMapping, TruthOptions
from fcn_deploy.workflows.tuning import Tune, build_fastest, jobs_here

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel
    from fcn_deploy.mixed_precision.kernel_tuning import Tuned

_log = logging.getLogger(__name__)

BackendName = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "simulation"]
Shapes = Sequence[str | ImageShape] | str | ImageShape


def build_engine(
    model: StrPath | ExportedModel,
    *,
    precision: RequestedPrecision = "fp32",
    calib_data: StrPath | ImageFolder | None = None,
    ranges: StrPath | Ranges | None = None,
    calib_method: str | None = None,
    calib_size: str | Size | None = None,
    max_images: int | None = None,
    bias_correction: bool = True,
    weight_rounding: Rounding | None = None,
    winograd: bool = True,
    tune: str | Size | None = None,
    spec_from: StrPath | ExportedModel | None = None,
    backend: BackendName = "auto",
    simulate: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt",
    io: Io = "image",
    target_cpu: TargetCpu | None = None,
    accuracy_budget: str | Criterion | None = None,
    precision_map: StrPath | None = None,
    data: StrPath | ImageFolder | None = None,
    labels: StrPath | None = None,
    ignore_index: int | Sequence[int] | None = None,
    label_map: LabelMapping | None = None,
    label_suffix: str | None = None,
    recursive: bool = False,
    min_shape: Shapes = (),
    opt_shape: Shapes = (),
    max_shape: Shapes = (),
    base: Base | None = None,
    tf32: bool = False,
    workspace: int | None = None,
    builder_optimization_level: int | None = None,
    timing_cache: StrPath | None = None,
    device: int | None = None,
    hardware_compatibility: bool = False,
    version_compatible: bool = False,
    compute_capability: Sequence[str] | str = (),
    twin: bool = False,
    log: StrPath | None = None,
    threads: int | None = None,
    output: StrPath | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Builds an engine and its sidecar from an exported model.

    A prequantized model, with Q/DQ from training or another tool, is built in INT8 as it is, with its own scales.

    Args:
        model: An exported ONNX file, or one that is loaded.
        precision: `fp32`, `fp16` (TensorRT), `bf16` (OpenVINO, TensorRT), `int8`, which needs `calib_data`, `ranges`,
            or Q/DQ in the model, or `fp8` (TensorRT), which needs one of the first two.
        calib_data: Folder of images to calibrate on first.
        ranges: What `calibrate` found for this model.
        calib_method: How ranges are chosen: `minmax` (the default of FP8), `percentile`, `entropy`, `mse` (the default
            of INT8), or for INT8 `auto`, which tries all on images that were not observed.
        calib_size: `HxW` or (height, width) to resize calibration images to.
        max_images: At most so many calibration images, evenly spread over the folder.
        bias_correction: INT8 and FP8: whether biases are corrected for the rounding of weights.
        weight_rounding: INT8: `nearest` or `correlated`; the better for the backend if None.
        winograd: ONNX Runtime: whether float 3x3 layers of many channels use Winograd's algorithm.
        tune: `HxW` or (height, width) of images; chooses by measured time, on this machine. For ONNX Runtime: which
            layers use Winograd's algorithm and, for INT8, which are INT8. With `backend="auto"` also the library: all
            that are installed and can do what is asked for build an engine, and the fastest is taken.
        spec_from: The exported model from which another tool made `model`, if that tool left out the spec.
        backend: `onnxruntime`, `openvino`, `tensorrt`, `tensorrt-rtx` or `simulation`; `auto` goes by the suffix of
            `output`, and takes `onnxruntime` for `.onnx`, unless `tune` finds another faster.
        simulate: For `simulation`: whose graph. They differ in INT8.
        io: `image`: uint8 images in, labels out. `tensor`: float image in, logits out.
        target_cpu: Where the engine will run. `generic` is right everywhere; `vnni` keeps all 8 bits of the weights,
            right with VNNI and on 64-bit Arm; `native` asks this machine. `generic` if None; `vnni` for INT8 on
            OpenVINO.
        accuracy_budget: `agreement>=99%` or `miou_drop<=0.3`: layers become float until it is kept.
        precision_map: The sidecar of an engine with the same INT8 layers.
        data: Images for a budget and for `calib_method="auto"`; every fifth calibration image is held out if None.
        labels: Their ground truth, for a budget of mIoU.
        ignore_index: Truth that does not count, one value or several; the net's own if None.
        label_map: What values of the ground truth mean, if they are not the net's labels: `255=1,7=ignore`, with
            numbers or names of classes; `cityscapes-trainid` or `ade20k`; a file with a pair a line; or a mapping.
        label_suffix: What the names of labels have after those of the images, such as `_gtFine_labelTrainIds`.
        recursive: Whether sub-folders of the folders are searched too.
        min_shape: TensorRT: smallest images; the n-th `min_shape`, `opt_shape` and `max_shape` make a profile.
        opt_shape: TensorRT: images that the engine is tuned for; without the other two also the only ones it takes.
        max_shape: TensorRT: largest images.
        base: What an INT8 or FP8 engine runs in where it is not quantised: `fp16`, `fp32` or `bf16` on TensorRT, `fp16`
            if None; `fp32` or `bf16` on OpenVINO, `fp32` if None.
        tf32: TensorRT: whether layers in FP32 may multiply in TF32.
        workspace: TensorRT: MiB of GPU memory that a layer may use.
        builder_optimization_level: TensorRT: 0 builds fastest, 5 searches longest.
        timing_cache: TensorRT: a file, read if it exists and written after the build.
        device: TensorRT: index of the GPU to build on, which is the one that the engine is for.
        hardware_compatibility: TensorRT: for GPUs of compute capability 8.0 and newer.
        version_compatible: TensorRT: for later versions and the lean runtime.
        compute_capability: TensorRT-RTX: GPU architectures to build for, such as `8.6`.
        twin: TensorRT: an FP16 engine beside the INT8 one, as `engine.twin`; written as `NAME.fp16.engine`.
        log: TensorRT: a file for everything that the library says.
        threads: CPU threads for calibrating, deciding and tuning.
        output: The file to write, with its sidecar beside it; nothing is written if None.
        progress: Told of each step.

    Raises:
        ArtifactError: ONNX Runtime cannot load what was built, or cannot run it on images of a real size.
        DependencyError: The backend's library is not installed, or the GPU that it needs is missing.
        GateError: Not even the net without INT8 keeps the accuracy budget.
        InputError: A file cannot be read, the builder refuses the model, or the ranges are of another model.
        PrecisionError: A layer does not run in the precision asked for.
        UsageError: Options do not go together, or the backend cannot do what is asked for.

    Example:
        >>> import fcn_deploy as fd
        >>> engine = fd.build_engine("fcn8s.onnx", precision="int8", calib_data="frames")
        >>> engine.save("fcn8s.int8.onnx")
    """
    progress = progress or Silent()
    search = SearchOptions(
        auto=calib_method == AUTO_METHOD,
        budget=None if accuracy_budget is None else criterion(accuracy_budget, "accuracy_budget"),
        precision_map=None if precision_map is None else as_path(precision_map, "precision_map"),
        data=None if data is None else image_folder(data, recursive=recursive),
        truth=TruthOptions.of(
            labels, ignore_index=ignore_index, label_map=label_map, label_suffix=label_suffix, recursive=recursive
        ),
    )
    calibrated_at = image_size(calib_size, "calib_size")
    source = RangesSource(precision, calib_data, ranges, calib_method, calibrated_at, max_images, recursive)
    tuned_for = image_size(tune, "tune")
    check_threads(threads)
    _check_int8_only(precision, search, twin)
    if threads is not None and calib_data is None and data is None and tune is None:
        got = "`threads` without `calib_data` or `tune`"
        raise UsageError("threads are for calibrating and tuning", got=got, fix="leave it out")
    if tune is not None and (not winograd or precision_map):
        raise UsageError("`tune` conflicts with `winograd=False` and `precision_map`", fix="name one of them")
    search_needs_images = search.decides and search.data is None and ranges is not None
    if search_needs_images:
        expected = '`data`, of images that were not observed, beside `accuracy_budget` or `calib_method="auto"`'
        raise UsageError("no images to decide on", got="`ranges`", expected=expected)
    file = None if output is None else as_path(output, "output")
    profiles = stated_profiles(min_shape, opt_shape, max_shape)
    said = None if log is None else as_path(log, "log")

    def job_for(library: str) -> Job:
        config = BuildConfig(
            precision=precision,
            io=io,
            method=default_method(precision) if calib_method in (None, AUTO_METHOD) else str(calib_method),
            target_cpu=target_cpu or default_target(library, precision),
            bias_correction=bias_correction,
            weight_rounding=weight_rounding,
            winograd=None if winograd else (),
        )
        tensorrt = TensorRTConfig(
            profiles=profiles,
            base="fp16" if base is None or library == OPENVINO else base,
            tf32=tf32,
            workspace=workspace,
            builder_optimization_level=builder_optimization_level,
            timing_cache=None if timing_cache is None else as_path(timing_cache, "timing cache"),
            device=device,
            hardware_compatibility=hardware_compatibility,
            version_compatible=version_compatible,
            compute_capabilities=(compute_capability,)
            if isinstance(compute_capability, str)
            else tuple(compute_capability),
        )
        return Job(library, config, tensorrt, base, file, said, simulate)

    among = tuned_for is not None and not twin and chooses_library(backend, file)
    if among:
        jobs = jobs_here(job_for, progress)
        _check_files(jobs[0], (model, ranges, spec_from))
        for warning in timing_warnings(timing_conditions(threads)):
            _log.warning("%s", warning)
    else:
        jobs = [job_for(choose_backend(backend, file, progress))]
        _check_kernels(jobs[0].backend, winograd, tune)
        jobs += [jobs[0].in_fp16()] if twin else []
        for each in jobs:
            _check_files(each, (model, ranges, spec_from))
            each.check()
    source = source.opened()
    search.check_files()
    check_model(model)
    check_model(spec_from)
    # After all that can be wrong at once: it takes a second.
    from fcn_deploy.quantization.prequantized import is_prequantized

    net = exported_model(model, spec_from)
    if is_prequantized(net.copy()):
        source.refuse_for_prequantized(jobs[0].config, search, twin, tune)
    elif precision in QUANTIZED:
        source.require_one()
    check_image_sizes(search.data, net.spec.min_size)
    check_stated_size(tuned_for, net.spec.min_size, "tune")
    seen, held_out = source.get(net, search, threads=threads, progress=progress)
    if among and tuned_for is not None:
        candidates = Tune(net, seen, search, held_out, _timed_on(net, tuned_for), threads, progress)
        engine = build_fastest(candidates, jobs)
        try_engine(engine, trial_shapes(source.image_shape()))
        return _written(engine, file)
    return _build(net, jobs, source, search, tuned_for, seen, held_out, threads=threads, progress=progress)


def _build(
    model: ExportedModel,
    jobs: Sequence[Job],
    source: RangesSource,
    search: SearchOptions,
    tuned_for: Size | None,
    ranges: Ranges | None,
    held_out: ImageFolder | None,
    *,
    threads: int | None,
    progress: Progress,
) -> Engine:
    from fcn_deploy.mixed_precision.decision import Decision
    from fcn_deploy.mixed_precision.kernel_tuning import tune_kernels

    job, *siblings = jobs
    tuned: Tuned | None = None
    if tuned_for is not None:
        shape, cpu = _timed_on(model, tuned_for), this_machine().cpu.name
        tuned = tune_kernels(model, job.config, ranges, shape, cpu, threads=threads, progress=progress)
        job = replace(job, config=tuned.config)
    decision = Decision(job.config)
    if search != SearchOptions() and ranges is not None:
        decision = decide_precisions(model, job, ranges, search, held_out, threads=threads, progress=progress)
        job = replace(job, config=decision.config)
    engine = decision.recorded(job.build(model, ranges, progress))
    if tuned is not None:
        engine = tuned.recorded(engine)
    beside = [each.build(model, ranges, progress) for each in siblings]
    shapes = trial_shapes(source.image_shape())
    for made in (engine, *beside):
        try_engine(made, shapes)
    # Written when all are made: if one fails, the user does not get half of what was asked for.
    engine, *twins = (_written(made, each.output) for made, each in zip((engine, *beside), jobs, strict=True))
    return replace(engine, twin=twins[0]) if twins else engine


def _timed_on(model: ExportedModel, size: Size) -> ImageShape:
    """Returns the shape to time on: one image, or as many as the model takes if it takes no other number."""
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return ImageShape(shape[0] if isinstance(shape[0], int) else 1, *size)


def _written(engine: Engine, output: Path | None) -> Engine:
    return engine if output is None else replace(engine, sidecar=engine.save(output))


def _check_kernels(backend: str, winograd: bool, tune: str | Size | None) -> None:
    """Checks that what chooses kernels is asked of the library whose kernels can be chosen."""
    if backend == ONNXRUNTIME:
        return
    if not winograd:
        got = f"`winograd=False` for {backend}"
        raise UsageError("Winograd's algorithm is for ONNX Runtime", got=got, fix="leave it out")
    if tune is not None:
        fix = "leave it out"
        if backend == OPENVINO:
            fix = "leave out `backend`, and the library is chosen by time too; or leave out `tune`"
        raise UsageError("only ONNX Runtime's kernels can be chosen", got=f"`tune` for {backend}", fix=fix)


def _check_int8_only(precision: RequestedPrecision, search: SearchOptions, twin: bool) -> None:
    if precision == "int8":
        return
    fix = 'add `precision="int8"`'
    if search != SearchOptions():
        what = 'budgets, precision maps and `calib_method="auto"` are for INT8'
        raise UsageError(what, got=f'`precision="{precision}"`', fix=fix)
    if twin:
        raise UsageError(
            "the FP16 engine is built beside an INT8 one", got=f'`twin` with `precision="{precision}"`', fix=fix
        )


def stated_profiles(least: Shapes, tuned: Shapes, largest: Shapes) -> tuple[ImageProfile, ...]:
    """Returns the profiles that `min_shape`, `opt_shape` and `max_shape` state.

    Raises:
        UsageError: They are no shapes, or do not make profiles.
    """
    return pair_shapes(*(tuple(map(image_shape, _listed(shapes))) for shapes in (least, tuned, largest)))


def _listed(shapes: Shapes) -> Sequence[str | ImageShape]:
    return [shapes] if isinstance(shapes, str | ImageShape) else shapes


def _check_files(job: Job, reads: Sequence[object]) -> None:
    """Checks that nothing that is written replaces what is read, or another file that is written."""
    cache = job.tensorrt.timing_cache
    if job.output is not None:
        check_distinct(job.output, *reads, job.log, cache)
        check_writable(job.output)
        check_writable(sidecar_path(job.output))
    for written in (job.log, cache):
        if written is not None:
            outputs = () if job.output is None else (job.output, sidecar_path(job.output))
            check_distinct(written, *reads, *outputs)
            check_writable(as_path(written))
