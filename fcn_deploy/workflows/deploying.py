"""`deploy`: from a checkpoint to verified engines, in one straight function.

checkpoint -> models -> onnx_export -> passes -> calibration -> quantization -> engines -> runtime -> evaluation
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.measures import GroundTruth
from fcn_deploy.artifacts.normalization import Preset, Triple
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.bundle.folder import check_replaceable
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.demo.inputs import DemoInputs
from fcn_deploy.diagnostics.conditions import timing_conditions
from fcn_deploy.engines.config import RequestedPrecision, TargetCpu
from fcn_deploy.engines.engine import Engine
from fcn_deploy.engines.tensorrt.profiles import resolve_profiles
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.comparison import compare
from fcn_deploy.evaluation.gates import GateOption, check_gate
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.evaluation.speedup import check_rounds, check_speedup
from fcn_deploy.files import StrPath, as_path, only_writer, output_folder
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.reporting.gallery import WorstImages
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.workflows.building import Shapes, build_engine, stated_profiles
from fcn_deploy.workflows.bundling import HeldAgainst, Simulated, for_gpu, with_profiles
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.deploy_config import DeployBackend, DeployConfig, split_images
from fcn_deploy.workflows.device import Target
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.fingerprints import engine_inputs, images_hash, measured_inputs, net_inputs
from fcn_deploy.workflows.image_sizes import check_image_sizes
from fcn_deploy.workflows.measured import Measured, engine_summary, time_engines
from fcn_deploy.workflows.net_options import NetOptions, Variant
from fcn_deploy.workflows.origins import command_line
from fcn_deploy.workflows.outcome import deployment_summary
from fcn_deploy.workflows.parameters import (
    Size,
    check_max_images,
    gate_options,
    image_folder,
    image_size,
    percentiles,
    require_torch,
    weights_file,
)
from fcn_deploy.workflows.publishing import BUNDLE, OutputFiles, publish, require_gates
from fcn_deploy.workflows.references import PYTORCH, NetCode, Runnable, opened
from fcn_deploy.workflows.reporting import require_jinja2
from fcn_deploy.workflows.resuming import ENGINE, MEASURED, MODEL, RANGES, Stages
from fcn_deploy.workflows.samples import LabelMapping, TruthOptions, ignore_indices, samples
from fcn_deploy.workflows.suspects import find_suspects, in_words
from fcn_deploy.workflows.truth import check_pairs, check_truth, with_ignored

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel

_log = logging.getLogger(__name__)


def deploy(
    weights: StrPath | None,
    calib_data: StrPath | ImageFolder | None,
    output: StrPath,
    *,
    demo: bool = False,
    int8: bool = False,
    bf16: bool = False,
    variant: Variant | None = None,
    model: str | None = None,
    size_divisor: SizeDivisor | None = None,
    pad_mode: PadMode | None = None,
    logits: str | int | None = None,
    resize_logits: ResizeMode | None = None,
    weights_key: str | None = None,
    weights_prefix: str | None = None,
    weights_ignore: Sequence[str] | str = (),
    num_classes: int | None = None,
    class_names: StrPath | None = None,
    ignore_index: int | Sequence[int] | None = None,
    normalization: Preset | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    scale: float | None = None,
    at_once: bool = False,
    input_padding: Literal[0, 100] | None = None,
    color: Literal["rgb", "bgr"] | None = None,
    threshold: float | None = None,
    calib_size: str | Size | None = None,
    max_images: int | None = None,
    calib_method: str | None = None,
    io: Io = "image",
    backend: DeployBackend = "onnxruntime",
    target_cpu: TargetCpu | None = None,
    min_shape: Shapes = (),
    opt_shape: Shapes = (),
    max_shape: Shapes = (),
    bundle: bool = False,
    data: StrPath | ImageFolder | None = None,
    labels: StrPath | None = None,
    label_map: LabelMapping | None = None,
    label_suffix: str | None = None,
    recursive: bool = False,
    gate: Sequence[str | GateOption] | str = (),
    require_speedup: float | None = None,
    threads: int | None = None,
    warmup: float = 200,
    duration: float = 3,
    iterations: int = 10,
    percentile: Sequence[float] | float = (90, 95, 99),
    resume: bool = False,
    report: bool = True,
    progress: Progress | None = None,
) -> Summary:
    """Exports, simplifies, calibrates, builds, verifies and measures in one go.

    Writes into the output folder: the exported model, the ranges (for INT8), each engine with its sidecar,
    `summary.json` and `report.html`. Engines are written only if every gate is met. The files of an earlier deployment
    of the same net are replaced or removed.

    Args:
        weights: The checkpoint, `.pth` or `.safetensors`.
        calib_data: Folder of images like those that the net will see.
        output: Folder for the engines; made if it does not exist.
        demo: Deploys the net that ships with fcn-deploy, on scenes that it generates in `output`, in INT8 too.
        int8: Whether to build an INT8 engine beside the FP32 one.
        bf16: Whether to build a BF16 engine beside it, which OpenVINO runs on CPUs that have BF16.
        variant: As for `export`, like the next ones up to `color`.
        model: What makes a custom net, `package.module:callable`.
        size_divisor: The custom net works at multiples of this size only.
        pad_mode: How images are padded to such multiples.
        logits: Which of the custom net's outputs are the logits.
        resize_logits: How they are resized to the size of the image.
        weights_key: The entry of the checkpoint that holds the weights.
        weights_prefix: Only tensors under this prefix are taken, without it.
        weights_ignore: Globs; the checkpoint's entries that match one are left out.
        num_classes: Checked against the checkpoint.
        class_names: A CSV file, one class a line.
        ignore_index: Labels that do not count, one or several; the first is the one that the model keeps.
        normalization: `imagenet`, `caffe`, `zero-one` or `minus-one-one`, instead of `mean`, `std` and `scale`.
        mean: Per channel, after `scale`.
        std: Likewise.
        scale: Factor for pixels in 0..255.
        at_once: Whether the skips are scaled.
        input_padding: 0 for a net of pytorch-fcn's layout without the paper's padding.
        color: The net's channel order.
        threshold: Of a binary net, as for `export`.
        calib_size: `HxW` or (height, width) to resize calibration images to.
        max_images: At most so many calibration images, evenly spread over the folder.
        calib_method: How INT8 ranges are chosen; `auto` tries all on every fifth image that would be observed.
        io: `image`: uint8 images in, labels out. `tensor`: float image in, logits out.
        backend: What the engines are for: `onnxruntime` or `openvino`; `tensorrt` or `tensorrt-rtx`, in FP16 and, with
            `int8`, in INT8. They are built here if there is a GPU; else a bundle is written, which `finish` builds.
        target_cpu: Where the engines will run: `generic`, `vnni` or `native`; as for `build_engine` if None.
        min_shape: TensorRT: smallest images, as for `build_engine`; the sizes of your images make a profile if None.
        opt_shape: TensorRT: images that the engines are tuned for.
        max_shape: TensorRT: largest images.
        bundle: TensorRT: whether the bundle is written although the engines were built here.
        data: Folder of images to verify on; every fifth calibration image is held out if None.
        labels: Folder of their ground truth.
        label_map: What values of the ground truth mean, if they are not the net's labels: `255=1,7=ignore`, with
            numbers or names of classes; `cityscapes-trainid` or `ade20k`; a file with a pair a line; or a mapping.
        label_suffix: What the names of labels have after those of the images, such as `_gtFine_labelTrainIds`.
        recursive: Whether sub-folders of the folders are searched too.
        gate: What an engine must keep, such as `agreement>=98%` or `fp32:error<=1e-3`, instead of the default gate
            of its precision. Without a precision it is for the last of FP32, BF16 and INT8 that is built.
        require_speedup: A gate of speed: how many times as fast as the FP32 engine the INT8 engine has to be, such as
            1.2, by the median over the rounds.
        threads: CPU threads; the library's default if None.
        warmup: Milliseconds that each engine runs before anything counts.
        duration: Seconds of measuring, all together.
        iterations: Least number of rounds.
        percentile: Percentiles of latency to report.
        resume: Whether the finished stages of an earlier run that failed are taken over: export, ranges, engines and
            measures, each only if all that went into it is the same. They are kept in `output`, in a hidden folder,
            until a deployment ends well; without `resume` they are removed.
        report: Whether `report.html` is written, of a deployment that missed a gate too, and the pictures for it.
        progress: Told of each step.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: The ground truth does not fit images or net, or labels no pixel; all is read before the export.
            Or another process deploys into the same folder.
        GateError: A gate was missed; there is no engine in the folder. Its `report` is the summary, which says which.
        FcnDeployError: A step failed; the folder is as it was.

    Example:
        >>> import fcn_deploy as fd
        >>> summary = fd.deploy("fcn8s.pth", "frames", "out", int8=True)
        >>> [engine.file for engine in summary.engines]
    """
    given = dict(locals())
    progress, folder, conditions = progress or Silent(), as_path(output, "output"), timing_conditions(threads)
    int8 = int8 or demo
    gates, has_labels = tuple(gate_options(gate)), labels is not None or demo
    config = DeployConfig(
        int8,
        calib_method,
        io,
        target_cpu,
        has_labels,
        gates,
        backend,
        bf16,
        require_speedup,
        stated_profiles(min_shape, opt_shape, max_shape),
        bundle,
    )
    timing = BenchmarkConfig(warmup, duration, iterations, percentiles(percentile))
    if require_speedup is not None:
        check_rounds(timing)
    runtime = RuntimeOptions(threads=threads)
    size = image_size(calib_size, "calib_size")
    ignored = ignore_indices(ignore_index)
    net_options = NetOptions(
        variant=variant,
        model=model,
        size_divisor=size_divisor,
        pad_mode=pad_mode,
        logits=logits,
        resize_logits=resize_logits,
        weights_key=weights_key,
        weights_prefix=weights_prefix,
        weights_ignore=weights_ignore,
        num_classes=num_classes,
        class_names=class_names,
        ignore_index=None if ignored is None else ignored[0],
        normalization=normalization,
        mean=mean,
        std=std,
        scale=scale,
        at_once=at_once,
        input_padding=input_padding,
        color=color,
        threshold=threshold,
    )
    check_max_images(max_images)
    if demo and any(given is not None for given in (weights, calib_data, data, labels)):
        raise UsageError("the demo brings its own weights and images", got="`demo` with others")
    if labels is not None and data is None:
        raise UsageError("labels without their images", got="`labels`", expected="`data` and `labels`")
    require_torch()
    if report:
        require_jinja2()
    if demo:  # written only now that the options have been checked
        inputs = DemoInputs(folder / "scenes")
        with progress.working(f"generating street scenes in {inputs.folder}"):
            inputs.write()
        weights, calib_data, data, labels = inputs.weights, inputs.calib_data, inputs.data, inputs.labels
    if weights is None or calib_data is None:
        raise UsageError("deploy needs a net and images", expected="`weights` and `calib_data`, or `demo`")
    checkpoint = weights_file(weights)
    calibration = image_folder(calib_data, max_images=max_images, size=size, recursive=recursive)
    of_truth = None if labels is None else ignored
    options = TruthOptions.of(
        labels, ignore_index=of_truth, label_map=label_map, label_suffix=label_suffix, recursive=recursive
    )
    judged_on = None if data is None else image_folder(data, recursive=recursive)
    observed, judged, decided_on = split_images(calibration, judged_on, config)
    if options is not None:
        check_pairs(judged, options)
    target = None
    if (flavor := config.flavor) is not None:
        check_replaceable(folder / BUNDLE)
        config = with_profiles(config, judged, observed, progress)
        target = Target.here(flavor, progress)

    checked: list[GroundTruth] = []

    def check_loaded(spec: ModelSpec) -> None:
        for images in (observed, judged, decided_on):
            check_image_sizes(images, spec.min_size)
        resolve_profiles(config.profiles, (None, None, None), spec.min_size)
        if options is not None:
            checked.append(check_truth(judged, options, spec))

    with output_folder(folder), only_writer(folder), Stages(folder, resume=resume, progress=progress) as stages:
        made_of = net_inputs(checkpoint, net_options)
        net = stages.run(
            "export",
            made_of,
            MODEL,
            lambda: export(checkpoint, **net_options.asked(), on_loaded=check_loaded, progress=progress),
        )
        if "export" in stages.taken:  # the ground truth may be another than that of the earlier run
            check_loaded(net.spec)
        files = OutputFiles(folder, net.spec.variant)
        files.check_writable()
        ranges = None
        if config.calibrates:
            images = {"exported model": net.sha256, "calib_data": images_hash(observed)}
            observe = functools.partial(calibrate, net, observed, threads=threads, progress=progress)
            ranges = stages.run("ranges", images, RANGES, observe)
        engines: dict[str, Engine] = {}
        for precision in config.precisions:
            build = functools.partial(_build, precision, net, ranges, decided_on, config, threads, progress)
            built_from = engine_inputs(precision, net.sha256, ranges, decided_on, config)
            engines[precision] = stages.run(precision, built_from, ENGINE, build)
        contestants: list[Runnable] = [*engines.values(), f"{PYTORCH}{checkpoint}"]
        code = NetCode(model, weights_key=weights_key, weights_prefix=weights_prefix, weights_ignore=weights_ignore)

        def measure() -> Measured:
            with opened(contestants, runtime, code, progress) as (*candidates, reference):
                reader = None if options is None else options.reader(net.spec)
                truth = samples(judged, options, "verifying", reader, progress=progress)
                ignore_index = None if reader is None else reader.ignore_index
                worst = WorstImages(judged.names, [*engines], net.spec, ignore_index)
                found = compare(reference, candidates, truth, ignore_index, watch=worst.add)
                if found.truth is not None:
                    found = replace(found, truth=with_ignored(found.truth, checked[0]))
                named: dict[str, Segmenter] = {"pytorch": reference}
                named.update(zip(engines, candidates, strict=True))
                image = next(iter(judged))
                timings = time_engines(named, image, timing, progress) if config.flavor is None else {}
            shape = (image.shape[0], image.shape[1])
            return Measured.of(shape, found, engines, timings, conditions, worst.result())

        compared = measured_inputs(engines, made_of, judged, options, timing, conditions)
        measured = stages.run("measures", compared, MEASURED, measure)
        results = {
            precision: check_gate(
                precision, measured.parities[precision], measured.drops[precision], config.criteria.get(precision, ())
            )
            for precision in engines
        }
        lossy = int8 and bool(results["int8"].failures)
        if config.require_speedup is not None:
            results["int8"] = check_speedup(results["int8"], measured.speedup("int8"), config.require_speedup)
        summaries = tuple(
            engine_summary(files.engine(precision).name, engine, measured, results[precision], timing)
            for precision, engine in engines.items()
        )
        summary = deployment_summary(
            files.model.name,
            net,
            ranges,
            measured,
            summaries,
            timing,
            judged=len(judged),
            resumed=stages.taken,
            command=command_line("deploy", deploy, given),
        )
        if config.flavor is not None and ranges is not None and summary.passed:
            made = Simulated(net, ranges, engines, config, summary, measured.kept, report)
            against = HeldAgainst(checkpoint, code, runtime, judged, options, checked[0] if checked else None)
            return for_gpu(made, against, files, target, timing, conditions, progress)
        costly = None
        if ranges is not None and lossy and all(each.parity.measured for each in summaries):
            costly = find_suspects(net, ranges, engines["int8"], config, judged, threads, progress)
        shipped, kept = engines if summary.passed else {}, measured.kept if report else None
        summary = publish(files, net, ranges, shipped, summary, progress, sensitivity=costly, kept=kept)
        require_gates(summary, lossy, "" if costly is None else in_words(costly))
    return summary


def _build(
    precision: RequestedPrecision,
    model: ExportedModel,
    ranges: Ranges | None,
    decided_on: ImageFolder | None,
    config: DeployConfig,
    threads: int | None,
    progress: Progress,
) -> Engine:
    is_int8 = precision == "int8"
    return build_engine(
        model,
        precision=precision,
        ranges=ranges if precision in ("fp16", "int8") else None,
        calib_method=config.calib_method if is_int8 else None,
        data=decided_on if is_int8 else None,
        io=config.io,
        target_cpu=config.target_cpu,
        # An engine for a GPU is simulated first: what it costs is known before there is a GPU.
        backend="simulation" if config.flavor is not None else config.backend,
        simulate="tensorrt" if config.flavor is None else config.flavor.name,  # type: ignore[arg-type]  # by name
        threads=threads if is_int8 and decided_on is not None else None,
        progress=progress,
    )
