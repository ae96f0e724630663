"""`fcn-deploy build-engine`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.cli.console import TerminalProgress, print_json
from fcn_deploy.cli.options import (
    PATH,
    SizeType,
    calibration_options,
    json_option,
    method_option,
    output_option,
    plan_from,
    plan_options,
    tensorrt_from,
    tensorrt_options,
    threads_option,
)

if TYPE_CHECKING:
    from fcn_deploy.artifacts.sidecar import Sidecar
    from fcn_deploy.engines.config import BuildConfig
    from fcn_deploy.engines.tensorrt.config import TensorRTConfig


@click.command("build-engine", short_help="ONNX to engine and sidecar.")
@click.argument("model", type=PATH)
@click.option("--fp32", "precisions", flag_value="fp32", multiple=True, help="All layers in FP32 (the default).")
@click.option("--fp16", "precisions", flag_value="fp16", multiple=True, help="TensorRT only; --ranges audits it.")
@click.option(
    "--int8", "precisions", flag_value="int8", multiple=True, help="Needs --calib-data, --ranges, or Q/DQ in MODEL."
)
@click.option("--calib-data", type=PATH, metavar="DIR", help="Calibrate on these images first.")
@click.option("--ranges", type=PATH, metavar="FILE", help="What calibrate wrote for this model.")
@method_option
@calibration_options
@click.option(
    "--no-bias-correction", is_flag=True, help="INT8: keep biases as they are, whatever rounding does to the weights."
)
@click.option(
    "--weight-rounding",
    type=click.Choice(["nearest", "correlated"]),
    help="INT8: nearest, or correlated: so that errors cancel where the input is smooth. Default: correlated for "
    "onnxruntime, nearest for TensorRT, whose weights are finer.",
)
@click.option(
    "--no-winograd",
    is_flag=True,
    help="onnxruntime: multiply directly in float 3x3 layers of many channels, for less memory.",
)
@click.option(
    "--tune",
    type=SizeType(),
    help="onnxruntime: choose by time, on this machine and for images of this size, which layers Winograd's algorithm "
    "multiplies and, with --int8, which are INT8 at all.",
)
@click.option(
    "--spec-from",
    type=PATH,
    metavar="MODEL",
    help="The exported model that MODEL was made of, by a tool that left out its spec.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnxruntime", "tensorrt", "tensorrt-rtx", "simulation"]),
    default="auto",
    show_default=True,
    help="auto: onnxruntime for .onnx; for .engine or .plan tensorrt if it is installed and there is a GPU, else "
    "tensorrt-rtx. simulation: an .onnx that gives on a CPU what TensorRT's graph says, to verify and evaluate it.",
)
@click.option(
    "--io",
    type=click.Choice(["image", "tensor"]),
    default="image",
    show_default=True,
    help="image: uint8 images in, labels out. tensor: float image in, logits out.",
)
@click.option(
    "--target-cpu",
    type=click.Choice(["generic", "vnni", "native"]),
    default="generic",
    show_default=True,
    help="Where the engine will run. generic is right everywhere; vnni keeps all 8 bits of the weights.",
)
@plan_options
@tensorrt_options
@click.option("--twin", is_flag=True, help="Beside an INT8 engine for TensorRT its twin in FP16, NAME.fp16.engine.")
@click.option("--log", type=PATH, metavar="FILE", help="Write everything the TensorRT library says.")
@threads_option
@output_option
@json_option
def command(
    model: Path,
    precisions: tuple[str, ...],
    calib_data: Path | None,
    ranges: Path | None,
    calib_method: str | None,
    calib_size: tuple[int, int] | None,
    max_images: int | None,
    no_bias_correction: bool,
    weight_rounding: Any,
    no_winograd: bool,
    tune: tuple[int, int] | None,
    spec_from: Path | None,
    backend: str,
    io: Any,
    target_cpu: Any,
    twin: bool,
    log: Path | None,
    threads: int | None,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Build an engine and its sidecar from an exported MODEL.

    A MODEL that holds Q/DQ, from training or another quantiser, is built with --int8 as it is, with its own scales.

    Options from --min-shape to --log are for TensorRT engines.
    """
    from fcn_deploy.artifacts.ranges import Ranges
    from fcn_deploy.artifacts.shapes import ImageShape
    from fcn_deploy.artifacts.sidecar import sidecar_path
    from fcn_deploy.data.folders import ImageFolder
    from fcn_deploy.engines.config import DEFAULT_METHOD, BuildConfig
    from fcn_deploy.errors import UsageError
    from fcn_deploy.files import check_writable
    from fcn_deploy.mixed_precision.decision import Decision
    from fcn_deploy.mixed_precision.method_search import AUTO
    from fcn_deploy.workflows import steps
    from fcn_deploy.workflows.plan import PlanOptions, plan
    from fcn_deploy.workflows.plan import tune as tune_kernels

    if len(set(precisions)) > 1:
        raise UsageError("more than one precision", got=" ".join(f"--{p}" for p in precisions), expected="one")
    precision: Any = precisions[0] if precisions else "fp32"
    if precision != "int8" and (calib_data or calib_method or calib_size or max_images):
        raise UsageError("calibration is for INT8", got=f"--{precision}", fix="add --int8, or leave it out")
    if precision == "fp32" and ranges:
        raise UsageError("ranges are for INT8 and FP16", got="--fp32", fix="add --int8 or --fp16, or leave them out")
    if ranges and (calib_size or max_images):
        raise UsageError(
            "a ranges file is taken as it is", got="--calib-size or --max-images with --ranges", fix="leave them out"
        )
    given = precision == "int8" and steps.brings_scales(model)
    if given:
        _check_given(
            twin,
            {"--calib-data": calib_data, "--ranges": ranges, "--calib-method": calib_method}
            | {"--calib-size": calib_size, "--max-images": max_images}
            | {"--no-bias-correction": no_bias_correction or None, "--weight-rounding": weight_rounding, "--tune": tune}
            | {f"--{name.replace('_', '-')}": options[name] for name in ("accuracy_budget", "precision_map", "data")},
        )
    elif precision == "int8" and (calib_data is None) == (ranges is None):
        raise UsageError(
            "INT8 needs to know what the tensors hold",
            got="both" if ranges else "neither",
            expected="--calib-data DIR or --ranges FILE",
        )
    if threads is not None and calib_data is None and options["data"] is None and tune is None:
        raise UsageError(
            "threads are for calibrating and tuning", got="--threads without --calib-data or --tune", fix="leave it out"
        )
    if tune is not None and (no_winograd or options["precision_map"]):
        raise UsageError(
            "layers are chosen by time, or named", got="--tune with --no-winograd or --precision-map", expected="one"
        )
    if twin and precision != "int8":
        raise UsageError("a twin is built beside INT8", got=f"--twin with --{precision}", fix="add --int8")
    asked = plan_from(options, calib_method)
    if precision != "int8" and asked != PlanOptions():
        raise UsageError("budgets and precision maps are for INT8", got=f"--{precision}", fix="add --int8")
    if asked.decides and asked.data is None and ranges is not None:
        raise UsageError(
            "nothing to decide on",
            got="--ranges, and no images",
            expected="--data DIR, of images that were not observed, beside --accuracy-budget or --calib-method auto",
        )
    spec = steps.read_spec(spec_from) if spec_from is not None else None
    method = DEFAULT_METHOD if calib_method in (None, AUTO) else calib_method
    config = BuildConfig(
        *(precision, io, method, target_cpu),
        bias_correction=not no_bias_correction,
        weight_rounding=weight_rounding,
        winograd=() if no_winograd else None,
    )
    tensorrt = tensorrt_from(options)
    progress = TerminalProgress()
    backend = steps.choose_backend(backend, output, progress)
    if tune is not None and backend != "onnxruntime":
        raise UsageError("engines of this backend are not tuned", got=f"--tune for {backend}", fix="leave it out")
    options_cache = None if tensorrt.timing_cache is None else Path(tensorrt.timing_cache)
    jobs = [_Job(output, config, tensorrt, log)]
    if twin:
        jobs.append(_twin(jobs[0]))
    for job in jobs:
        steps.check_distinct(job.output, model, ranges, spec_from, job.log, options_cache)
        for written in (job.log, options_cache):
            if written is not None:
                steps.check_distinct(written, model, ranges, spec_from, job.output, sidecar_path(job.output))
        check_writable(job.output)
        steps.check_build(backend, job.config, job.tensorrt, job.log)
    source: Any = ranges
    held_out = None
    if calib_data is not None:
        images = ImageFolder.open(calib_data, max_images=max_images, size=calib_size)
        if asked.decides and asked.data is None:
            images, held_out = images.every_fifth()
        source = steps.calibrate(model, images, threads=threads, progress=progress)
    if isinstance(source, Path) and (tune is not None or asked != PlanOptions()):
        source = Ranges.load(source)
    tuned = None
    if tune is not None:
        tuned = tune_kernels(model, config, source, ImageShape(1, *tune), threads=threads, progress=progress)
        config = tuned.config
        jobs[0] = replace(jobs[0], config=config)
    decision = Decision(config)
    if asked != PlanOptions():
        decision = plan(
            *(model, config, source, asked, held_out),
            backend=backend,
            base=tensorrt.base,
            threads=threads,
            progress=progress,
        )
        jobs[0] = replace(jobs[0], config=decision.config)
    engines = [
        steps.build(
            *(model, job.config, source),
            backend=backend,
            options=job.tensorrt,
            progress=progress,
            log=job.log,
            spec=spec,
        )
        for job in jobs
    ]
    engines[0] = decision.recorded(engines[0])
    if tuned is not None:
        engines[0] = tuned.recorded(engines[0])
    # Only when all are made: an engine without the twin that was asked for is not what was asked for.
    sidecars = [engine.save(job.output) for engine, job in zip(engines, jobs, strict=True)]
    if as_json:
        print_json({**sidecars[0].to_json(), **({"twin": sidecars[1].to_json()} if twin else {})})
        return
    for job, sidecar in zip(jobs, sidecars, strict=True):
        click.echo(_describe(job.output, sidecar))


def _check_given(twin: bool, options: Mapping[str, object]) -> None:
    """Refuses what would go by ranges, and the FP16 twin, for a model that brings its own Q/DQ."""
    from fcn_deploy.errors import UsageError

    asked = [name for name, value in options.items() if value is not None]
    if asked:
        raise UsageError(
            "the model holds Q/DQ and brings its own scales",
            got=", ".join(asked),
            fix="leave it out, or quantise the float model it was made from",
        )
    if twin:
        raise UsageError(
            "a model that holds Q/DQ has no twin in FP16", got="--twin", fix="build the float model with --fp16"
        )


@dataclass(frozen=True)
class _Job:
    """An engine to build, and where its files go."""

    output: Path
    config: BuildConfig
    tensorrt: TensorRTConfig
    log: Path | None


def _twin(job: _Job) -> _Job:
    """The same in FP16 throughout: `net.int8.engine` and `net.engine` have the twin `net.fp16.engine`."""

    def beside(path: Path) -> Path:
        return path.with_name(f"{path.stem.removesuffix('.int8')}.fp16{path.suffix}")

    config, tensorrt = job.config.as_float("fp16"), replace(job.tensorrt, base="fp16")
    return _Job(beside(job.output), config, tensorrt, beside(job.log) if job.log else None)


def _describe(output: Path, sidecar: Sidecar) -> str:
    precision = sidecar.precision
    achieved = precision.achieved_layers or {}
    counts = Counter(achieved.get(name) or asked for name, asked in precision.layers.items())
    layers = ", ".join(f"{counts[kind]} in {kind.upper()}" for kind in ("int8", "fp16", "fp32"))
    return (
        f"wrote {output}, {sidecar.engine.bytes / 1e6:.1f} MB: of {counts.total()} layers {layers}; "
        "not verified yet: fcn-deploy verify"
    )
