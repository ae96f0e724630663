"""`fcn-deploy finish`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.deployment import show_deployment
from fcn_deploy.cli.options.groups import benchmark_options, json_option
from fcn_deploy.cli.options.types import FOLDER, PATH, SizeType


@click.command("finish", short_help="On the device: a bundle to engines.")
@click.argument("bundle", type=FOLDER)
@click.option(
    "-o", "--output", type=PATH, metavar="DIR", help="Folder for the engines.  [default: finished, beside BUNDLE]"
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
    default="auto",
    show_default=True,
    help="The library; auto: the one that the bundle was made for.",
)
@click.option("--device", type=click.IntRange(0), help="Index of the GPU.  [default: 0]")
@click.option(
    "--shape", type=SizeType(), help="Size of the image that the times are of.  [default: that of the first image]"
)
@benchmark_options
@click.option(
    "--log",
    type=PATH,
    metavar="FILE",
    help="What the library says while it builds; for build.log into build.fp16.log and build.int8.log.",
)
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Build, verify and time the engines of a BUNDLE that deploy wrote, on this machine's GPU.

    Needs a TensorRT library with cuda-core and cuda-bindings; neither PyTorch nor onnx nor a network. Every file of the
    bundle is checked first. Engines that meet their gates are written, with their sidecars and summary.json, which says
    which engine to ship: the fastest. If one misses its gate, it is not written, and the exit code is 3.
    """
    from fcn_deploy.workflows.finishing import finish

    show_deployment(lambda progress: finish(**options, progress=progress), as_json)
