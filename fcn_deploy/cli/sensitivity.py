"""`fcn-deploy sensitivity`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.console import print_json, print_table, say
from fcn_deploy.cli.options.groups import json_option, recursive_option, target_cpu_option, threads_option
from fcn_deploy.cli.options.types import FOLDER, PATH
from fcn_deploy.cli.progress import TerminalProgress


@click.command("sensitivity", short_help="What each layer costs in INT8, and saves.")
@click.argument("model", type=PATH)
@click.option("--ranges", type=PATH, metavar="FILE", required=True, help="What calibrate wrote for this model.")
@click.option("--data", type=FOLDER, metavar="DIR", required=True, help="Images that calibration has not observed.")
@click.option(
    "--max-images",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="At most so many, evenly spread over the folder.",
)
@recursive_option
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "openvino", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="Whose graph is examined and timed; TensorRT's is simulated, and what it saves is in MACs instead of time.",
)
@click.option(
    "--base",
    type=click.Choice(["fp16", "fp32", "bf16"]),
    help="TensorRT: precision of what is not INT8.  [default: fp16]",
)
@click.option(
    "--calib-method",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    help="How ranges are chosen.  [default: mse]",
)
@target_cpu_option
@click.option("--plot", type=PATH, metavar="FILE", help="Draw it into a .svg, .png or .pdf file.")
@click.option("-o", "--output", type=PATH, help="Write it as JSON.")
@threads_option
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Measure what INT8 costs and saves in each layer of an exported MODEL.

    Each layer is measured twice: as the only INT8 layer, and as the only float one of the engine's INT8 layers.
    """
    from fcn_deploy.workflows.measuring_sensitivity import sensitivity

    with TerminalProgress() as progress:
        found = sensitivity(**options, progress=progress)
    if as_json:
        print_json(found.to_json())
        return
    from fcn_deploy.reporting.tables import sensitivity_table

    print_table(sensitivity_table(found))
    for path in (options["output"], options["plot"]):
        if path is not None:
            say(f"wrote {path}")
