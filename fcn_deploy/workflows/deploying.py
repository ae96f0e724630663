"""`deploy`: from a checkpoint to verified engines, in one straight function.

checkpoint -> models -> onnx_export -> passes -> calibration -> quantization -> engines -> runtime -> evaluation
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.measures import GroundTruth
from fcn_deploy.artifacts.normalization import Preset, Triple
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.demo.inputs import DemoInputs
from fcn_deploy.engines.config import DEFAULT_METHOD, BuildConfig, RequestedPrecision, TargetCpu
from fcn_deploy.engines.engine import Engine
from fcn_deploy.errors import ArtifactError, UsageError
from fcn_deploy.evaluation.comparison import compare
from fcn_deploy.evaluation.gates import Criterion, GateOption, check_gate, gates_by_precision
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.files import StrPath, as_path, output_folder
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.mixed_precision.damage import measure_sensitivity
from fcn_deploy.mixed_precision.method_search import AUTO
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.cpu import has_vnni
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.calibrating import calibrate
from fcn_deploy.workflows.exporting import Variant, export
from fcn_deploy.workflows.measured import engine_summary, reference_miou, summary_warnings, time_engines
from fcn_deploy.workflows.parameters import (
    Size,
    channel_order,
    check_max_images,
    gate_options,
    image_folder,
    image_size,
    input_file,
    outputs,
    padding,
    percentiles,
    require_torch,
)
from fcn_deploy.workflows.publishing import OutputFiles, publish, require_gates
from fcn_deploy.workflows.references import PYTORCH, NetCode, Runnable, opened
from fcn_deploy.workflows.samples import LabelMapping, TruthOptions, ignore_indices, samples
from fcn_deploy.workflows.truth import check_truth, with_ignored

_log = logging.getLogger(__name__)
_FEW_JUDGED = 20
# If INT8 misses its gate: how many layers are named, and on how many images they are found.
_SUSPECTS = 3
_SUSPECTED_ON = 4


def deploy(
    weights: StrPath | None,
    calib_data: StrPath | ImageFolder | None,
    output: StrPath,
    *,
    demo: bool = False,
    int8: bool = False,
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
    target_cpu: TargetCpu = "generic",
    data: StrPath | ImageFolder | None = None,
    labels: StrPath | None = None,
    label_map: LabelMapping | None = None,
    label_suffix: str | None = None,
    recursive: bool = False,
    gate: Sequence[str | GateOption] | str = (),
    threads: int | None = None,
    warmup: float = 200,
    duration: float = 3,
    iterations: int = 10,
    percentile: Sequence[float] | float = (90, 95, 99),
    progress: Progress | None = None,
) -> Summary:
    """Exports, simplifies, calibrates, builds, verifies and measures in one go.

    Writes into the output folder: the exported model, the ranges (for INT8), each engine with its sidecar, and
    `summary.json`. Engines are written only if every gate is met. The files of an earlier deployment of the same net
    are replaced or removed.

    Args:
        weights: The checkpoint, `.pth` or `.safetensors`.
        calib_data: Folder of images like those that the net will see.
        output: Folder for the engines; made if it does not exist.
        demo: Deploys the net that ships with fcn-deploy, on scenes that it generates in `output`, in INT8 too.
        int8: Whether to build an INT8 engine beside the FP32 one.
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
        target_cpu: Where the engines will run: `generic`, `vnni` or `native`.
        data: Folder of images to verify on; every fifth calibration image is held out if None.
        labels: Folder of their ground truth.
        label_map: What values of the ground truth mean, if they are not the net's labels: `255=1,7=ignore`, with
            numbers or names of classes; `cityscapes-trainid` or `ade20k`; a file with a pair a line; or a mapping.
        label_suffix: What the names of labels have after those of the images, such as `_gtFine_labelTrainIds`.
        recursive: Whether sub-folders of the folders are searched too.
        gate: What an engine must keep, such as `agreement>=98%` or `fp32:error<=1e-3`, instead of the default gate
            of its precision. Without a precision it is for INT8, or FP32 if that is the only one.
        threads: CPU threads; the library's default if None.
        warmup: Milliseconds that each engine runs before anything counts.
        duration: Seconds of measuring, all together.
        iterations: Least number of rounds.
        percentile: Percentiles of latency to report.
        progress: Told of each step.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: The ground truth does not fit images or net, or labels no pixel; all is read before the export.
        GateError: A gate was missed; there is no engine in the folder. Its `report` is the summary, which says which.
        FcnDeployError: A step failed; the folder is as it was.

    Example:
        >>> import fcn_deploy as fd
        >>> summary = fd.deploy("fcn8s.pth", "frames", "out", int8=True)
        >>> [engine.file for engine in summary.engines]
    """
    progress, folder = progress or Silent(), as_path(output, "output")
    int8 = int8 or demo
    config = _DeployConfig(int8, calib_method, io, target_cpu, labels is not None or demo, tuple(gate_options(gate)))
    timing = BenchmarkConfig(warmup, duration, iterations, percentiles(percentile))
    runtime = RuntimeOptions(threads=threads)
    size = image_size(calib_size, "calib_size")
    channel_order(color)
    padding(model, size_divisor, pad_mode)
    outputs(model, logits, resize_logits)
    check_max_images(max_images)
    if demo and any(given is not None for given in (weights, calib_data, data, labels)):
        raise UsageError("the demo brings its own weights and images", got="`demo` with others")
    if labels is not None and data is None:
        raise UsageError("labels without their images", got="`labels`", expected="`data` and `labels`")
    require_torch()
    if demo:  # written only now that the options have been checked
        inputs = DemoInputs(folder / "scenes")
        with progress.working(f"generating street scenes in {inputs.folder}"):
            inputs.write()
        weights, calib_data, data, labels = inputs.weights, inputs.calib_data, inputs.data, inputs.labels
    if weights is None or calib_data is None:
        raise UsageError("deploy needs a net and images", expected="`weights` and `calib_data`, or `demo`")
    checkpoint = input_file(weights)
    calibration = image_folder(calib_data, max_images=max_images, size=size, recursive=recursive)
    ignored = ignore_indices(ignore_index)
    of_truth = None if labels is None else ignored
    options = TruthOptions.of(
        labels, ignore_index=of_truth, label_map=label_map, label_suffix=label_suffix, recursive=recursive
    )
    judged_on = None if data is None else image_folder(data, recursive=recursive)
    observed, judged, decided_on = _split(calibration, judged_on, config)
    if options is not None:
        options.files(judged)

    checked: list[GroundTruth] = []

    def check_loaded(spec: ModelSpec) -> None:
        if options is not None:
            checked.append(check_truth(judged, options, spec))

    with output_folder(folder):
        net = export(
            checkpoint,
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
            on_loaded=check_loaded,
            progress=progress,
        )
        files = OutputFiles(folder, net.spec.variant)
        files.check_writable()
        ranges = calibrate(net, observed, threads=threads, progress=progress) if int8 else None
        engines = _build(net, ranges, decided_on, config, threads, progress)
        contestants: list[Runnable] = [*engines.values(), f"{PYTORCH}{checkpoint}"]
        code = NetCode(model, weights_key=weights_key, weights_prefix=weights_prefix, weights_ignore=weights_ignore)
        with opened(contestants, runtime, code, progress) as (*candidates, reference):
            spec = net.spec
            reader = None if options is None else options.reader(spec)
            truth = samples(judged, options, "verifying", reader, progress=progress)
            found = compare(reference, candidates, truth, None if reader is None else reader.ignore_index)
            if found.truth is not None:
                found = replace(found, truth=with_ignored(found.truth, checked[0]))
            named: dict[str, Segmenter] = {"pytorch": reference}
            named.update(zip(engines, candidates, strict=True))
            image = next(iter(judged))
            timings = time_engines(named, image, timing, progress)
        results = {
            precision: check_gate(precision, each.parity, each.drop, config.criteria.get(precision, ()))
            for precision, each in zip(engines, found.engines, strict=True)
        }
        summaries = tuple(
            engine_summary(files.engine(precision).name, engine, each, results[precision], timings, timing)
            for (precision, engine), each in zip(engines.items(), found.engines, strict=True)
        )
        summary = Summary(
            model=files.model.name,
            variant=spec.variant,
            export_error=net.error or 0.0,
            calibration={"observed": len(observed) if ranges else 0, "judged": len(judged)},
            shape=(image.shape[0], image.shape[1]),
            pytorch_ms=timings["pytorch"].median,
            pytorch_miou=reference_miou(found),
            engines=summaries,
            truth=found.truth,
            normalization=spec.normalization,
            warnings=summary_warnings(found, spec, summaries),
        )
        suspects = ""
        if ranges is not None and results["int8"].failures and all(each.parity.measured for each in summaries):
            suspects = _suspects(net, ranges, engines["int8"], config, judged, threads, progress)
        publish(files, net, ranges, engines, summary, progress)
    require_gates(summary, suspects)
    return summary


@dataclass(frozen=True)
class _DeployConfig:
    """What is built, apart from the files that it is made from.

    Attributes:
        int8: Whether INT8 is built beside FP32.
        calib_method: How INT8 ranges are chosen, or None.
        io: Of the engines.
        target_cpu: Of the engines.
        has_labels: Whether there is ground truth.
        gates: As the user asked for them.
    """

    int8: bool
    calib_method: str | None
    io: Io
    target_cpu: TargetCpu
    has_labels: bool
    gates: tuple[GateOption, ...]

    def __post_init__(self) -> None:
        if self.calib_method is not None and not self.int8:
            raise UsageError("calibration is for INT8", got="`calib_method`", fix="add `int8=True`, or leave it out")
        for precision in self.precisions:
            self.build_config(precision)
        _ = self.criteria
        if self.int8 and self.target_cpu == "vnni" and not has_vnni():
            raise ArtifactError(
                "an INT8 engine for CPUs with VNNI cannot be verified on this one",
                fix='deploy with `target_cpu="generic"`, or build the engine and verify it where it will run',
            )

    @property
    def precisions(self) -> tuple[RequestedPrecision, ...]:
        """What is built, FP32 first."""
        return ("fp32", "int8") if self.int8 else ("fp32",)

    @property
    def auto(self) -> bool:
        """Whether the calibration method is chosen on images."""
        return self.int8 and self.calib_method == AUTO

    @property
    def criteria(self) -> dict[str, tuple[Criterion, ...]]:
        """What the engine must keep, by precision; only precisions for which the user asked for a gate."""
        not_measured = {}
        if not self.has_labels:
            not_measured["miou_drop"] = "name images and their ground truth with `data` and `labels`"
        if self.io == "image":
            not_measured["error"] = 'build with `io="tensor"`, for engines that give logits'
        return gates_by_precision(self.gates, self.precisions, not_measured)

    def build_config(self, precision: RequestedPrecision) -> BuildConfig:
        """Returns the options of the builder."""
        method = DEFAULT_METHOD if self.calib_method in (None, AUTO) else str(self.calib_method)
        return BuildConfig(precision, self.io, method, self.target_cpu)


def _split(
    calibration: ImageFolder, data: ImageFolder | None, config: _DeployConfig
) -> tuple[ImageFolder, ImageFolder, ImageFolder | None]:
    """Returns the images to observe, to verify on, and, if the method is `auto`, to choose it on."""
    if data is None:
        observed, judged = calibration.every_fifth()
    else:
        observed, judged = calibration, data
    if len(judged) < _FEW_JUDGED:
        _log.warning("the gate will rest on %d images; name more with `data`, or calibrate on more", len(judged))
    if not config.auto:
        return observed, judged, None
    observed, decided_on = observed.every_fifth()
    return observed, judged, decided_on


def _build(
    model: ExportedModel,
    ranges: Ranges | None,
    decided_on: ImageFolder | None,
    config: _DeployConfig,
    threads: int | None,
    progress: Progress,
) -> dict[RequestedPrecision, Engine]:
    built = functools.partial(
        build_engine, model, io=config.io, target_cpu=config.target_cpu, backend="onnxruntime", progress=progress
    )
    engines: dict[RequestedPrecision, Engine] = {"fp32": built()}
    if ranges is not None:
        engines["int8"] = built(
            precision="int8",
            ranges=ranges,
            calib_method=config.calib_method,
            data=decided_on,
            threads=threads if decided_on is not None else None,
        )
    return engines


def _suspects(
    model: ExportedModel,
    ranges: Ranges,
    engine: Engine,
    config: _DeployConfig,
    judged: ImageFolder,
    threads: int | None,
    progress: Progress,
) -> str:
    """Returns the layers that cost the most, in words, measured on some of the images of the gate."""
    method = engine.sidecar.precision.method or DEFAULT_METHOD
    candidates = Candidates(model, ranges, BuildConfig("int8", "tensor", method, config.target_cpu))
    images = list(itertools.islice(judged, _SUSPECTED_ON))
    found = measure_sensitivity(candidates, images, threads=threads, progress=progress)
    worst = found.by_damage()[:_SUSPECTS]
    return ", ".join(f"{layer.name} ({found.damage(layer):.2%} of pixels)" for layer in worst)
