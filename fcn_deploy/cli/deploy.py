"""`fcn-deploy deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.cli.console import TerminalProgress, print_json, print_table
from fcn_deploy.cli.options import (
    PATH,
    GateType,
    benchmark_options,
    calibration_options,
    json_option,
    method_option,
    model_options,
    output_option,
    spec_from,
    spec_options,
    threads_option,
)

if TYPE_CHECKING:
    from fcn_deploy.workflows.summary import Summary


@click.command("deploy", short_help="All the steps, from checkpoint to engines.")
@click.option("--weights", type=PATH, help="Checkpoint: .pth or .safetensors.")
@click.option("--calib-data", type=PATH, metavar="DIR", help="Folder of images like those the net will see.")
@click.option("--demo", is_flag=True, help="Deploy the net that ships with fcn-deploy, on scenes it generates.")
@click.option("--int8", is_flag=True, help="Build an INT8 engine beside the FP32 one. --demo does.")
@click.option("--variant", type=click.Choice(["fcn32s", "fcn16s", "fcn8s"]), help="What the checkpoint must be.")
@model_options
@spec_options
@calibration_options
@method_option
@click.option("--io", type=click.Choice(["image", "tensor"]), default="image", show_default=True)
@click.option("--target-cpu", type=click.Choice(["generic", "vnni", "native"]), default="generic", show_default=True)
@click.option(
    "--data", type=PATH, metavar="DIR", help="Images to judge on.  [default: every fifth calibration image, held out]"
)
@click.option("--labels", type=PATH, metavar="DIR", help="Their ground truth: index images of the same names.")
@click.option(
    "--gate",
    "gates",
    type=GateType(),
    multiple=True,
    metavar="[PRECISION:]GATE",
    help="What an engine must keep, such as agreement>=98% or fp32:error<=1e-3, in place of what its precision must by "
    "default; repeatable. Without a precision that of the INT8 engine, or of FP32 if it is the only one.",
)
@threads_option
@benchmark_options
@output_option
@json_option
def command(
    weights: Path | None,
    calib_data: Path | None,
    demo: bool,
    warmup: float,
    duration: float,
    iterations: int,
    percentile: tuple[float, ...],
    calib_method: str | None,
    int8: bool,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Go all the way: export, simplify, calibrate, build, verify, benchmark.

    Writes the exported model, the engines with their sidecars, and summary.json into the folder OUTPUT. If an engine
    misses its gate, nothing is shipped and the exit code is 3.
    """
    from fcn_deploy.engines.config import DEFAULT_METHOD
    from fcn_deploy.errors import GateError, UsageError
    from fcn_deploy.evaluation.latency import BenchmarkConfig
    from fcn_deploy.workflows.summary import Summary

    progress = TerminalProgress()
    with progress.working("loading PyTorch"):
        from fcn_deploy.workflows.deploying import DeployConfig, deploy
    inputs = None
    if demo:
        if weights or calib_data or options["data"] or options["labels"]:
            raise UsageError("the demo brings its own weights and images", got="--demo with others")
        from fcn_deploy.demo.inputs import DemoInputs

        inputs = DemoInputs(output / "scenes")
        weights, calib_data, int8 = inputs.weights, inputs.calib_data, True
        options.update(data=inputs.data, labels=inputs.labels)
    if weights is None or calib_data is None:
        raise UsageError("deploy needs a net and images", expected="--weights W --calib-data DIR, or --demo")
    if calib_method and not int8:
        raise UsageError("calibration is for INT8", got="--calib-method", fix="add --int8, or leave it out")
    config = DeployConfig(
        weights=weights,
        calib_data=calib_data,
        output=output,
        int8=int8,
        options=spec_from(options),
        method=calib_method or DEFAULT_METHOD,
        benchmark=BenchmarkConfig(warmup, duration, iterations, percentile),
        **options,
    )
    if inputs is not None:
        with progress.working(f"generating street scenes in {inputs.folder}"):
            inputs.write()
    try:
        summary = deploy(config, progress)
    except GateError as error:
        if isinstance(error.report, Summary):
            _show(error.report, as_json)
        raise
    _show(summary, as_json)


def _show(summary: Summary, as_json: bool) -> None:
    if as_json:
        print_json(summary.to_json())
        return
    from fcn_deploy.reporting.tables import summary_table

    print_table(summary_table(summary))
