"""`fcn-deploy calibrate`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.console import print_json, say
from fcn_deploy.cli.options.groups import calibration_options, json_option, output_option, threads_option
from fcn_deploy.cli.options.types import FOLDER, PATH
from fcn_deploy.cli.progress import TerminalProgress


@click.command("calibrate", short_help="Images to ranges.")
@click.argument("model", type=PATH)
@click.option("--calib-data", type=FOLDER, metavar="DIR", help="Folder of images like those the net will see.")
@calibration_options
@click.option("--random-calibration", is_flag=True, help="Noise instead of images, for timing. Needs --calib-size.")
@click.option(
    "--balance/--no-balance",
    default=True,
    show_default=True,
    help="Whether to balance the channels of tensors first, by 16 of the images: finer steps for weak channels.",
)
@threads_option
@output_option
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Run an exported MODEL over images and write histograms of its tensors.

    With the ranges file, calibration methods can be tried later without the images.
    """
    from fcn_deploy.workflows.calibrating import calibrate

    with TerminalProgress() as progress:
        ranges = calibrate(**options, progress=progress)
    tensors, file = len(ranges.histograms), options["output"]
    if as_json:
        print_json({"file": str(file), "data": ranges.to_json()["data"], "tensors": tensors})
    else:
        say(f"wrote {file}: {tensors} tensors over {ranges.data.count} images")
