"""`fcn-deploy deploy`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.deployment import show_deployment
from fcn_deploy.cli.options.groups import (
    benchmark_options,
    calibration_options,
    gate_option,
    ignore_indices_option,
    io_option,
    json_option,
    labels_options,
    method_option,
    model_options,
    output_option,
    profile_options,
    spec_options,
    target_cpu_option,
    threads_option,
    variant_option,
    weights_options,
)
from fcn_deploy.cli.options.types import FOLDER, PATH


@click.command("deploy", short_help="All steps, from checkpoint to engines.")
@click.option("--weights", type=PATH, help="Checkpoint: .pth or .safetensors.")
@click.option("--calib-data", type=FOLDER, metavar="DIR", help="Folder of images like those the net will see.")
@click.option("--demo", is_flag=True, help="Deploy the net that ships with fcn-deploy, on scenes it generates.")
@click.option("--int8", is_flag=True, help="Build an INT8 engine beside the FP32 or FP16 one; --demo includes it.")
@click.option("--bf16", is_flag=True, help="Build a BF16 engine beside it: openvino, on CPUs that have BF16.")
@variant_option
@model_options
@weights_options
@spec_options
@ignore_indices_option
@calibration_options
@method_option
@io_option
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]),
    default="onnxruntime",
    show_default=True,
    help="What the engines are for. onnxruntime and openvino: FP32, measured here. tensorrt and tensorrt-rtx: FP16; "
    "without a GPU here a bundle is written, which fcn-deploy finish builds on the device.",
)
@target_cpu_option
@profile_options(*["what your images have"] * 3)
@click.option("--bundle", is_flag=True, help="TensorRT: write the bundle although the engines were built here.")
@click.option(
    "--data",
    type=FOLDER,
    metavar="DIR",
    help="Images to verify on.  [default: every fifth calibration image, held out]",
)
@click.option("--labels", type=FOLDER, metavar="DIR", help="Their ground truth: index images of the same names.")
@labels_options
@gate_option
@click.option(
    "--require-speedup",
    type=float,
    metavar="R",
    help="A gate of speed: the INT8 engine must be at least so many times as fast as the FP32 engine, such as 1.2.",
)
@threads_option
@benchmark_options
@click.option(
    "--resume",
    is_flag=True,
    help="Take over the finished stages of an earlier run that failed, if the same went into them.",
)
@click.option(
    "--no-report", "report", flag_value=False, default=True, is_flag=True, help="Write no report.html, and no pictures."
)
@output_option
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Export, simplify, calibrate, build, verify and benchmark in one go.

    Writes the exported model, the engines with their sidecars, summary.json and report.html into the folder OUTPUT, and
    says which engine to ship: the fastest that meets its gate. If an engine misses its gate, no engine is written, the
    report says why, and the exit code is 3. All ground truth is read and checked before anything is exported.

    Gates of TensorRT engines are checked by simulation on this CPU first. Without a GPU the folder OUTPUT/bundle is
    written; on the device, fcn-deploy finish bundle builds, verifies and times the engines.

    If a stage fails, those before are kept in the hidden folder OUTPUT/.fcn-deploy until a deployment ends well;
    --resume takes them over, and does anew what depends on anything that has changed.
    """
    from fcn_deploy.workflows.deploying import deploy

    show_deployment(lambda progress: deploy(**options, progress=progress), as_json)
