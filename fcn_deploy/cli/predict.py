"""`fcn-deploy predict`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.console import print_json, say
from fcn_deploy.cli.options.groups import (
    gpu_options,
    json_option,
    model_options,
    recursive_option,
    threads_option,
    weights_options,
)
from fcn_deploy.cli.options.types import FOLDER, NAME, KindsType, SizeType
from fcn_deploy.cli.progress import TerminalProgress


@click.command("predict", short_help="Label images and write pictures.")
@click.argument("engine", type=NAME)
@click.argument("inputs", type=NAME, nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--save",
    type=KindsType(),
    multiple=True,
    default=("labels", "overlay"),
    show_default=True,
    help="What to write of each image: labels (index image), color (mask), overlay, panel (image, overlay, legend).",
)
@click.option(
    "--tile",
    type=SizeType(),
    help="Run larger images in tiles of this size, rounded up to the net's stride, so that memory does not grow "
    "with the image. The labels are those of the image as a whole.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Most pixels that an image may have, as a guard against files that fill the memory.  [default: 178956970]",
)
@recursive_option
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do at a file that is no image, is damaged or does not fit: stop, or skip it, go on, and exit 6 in "
    "the end.",
)
@model_options
@weights_options
@threads_option
@gpu_options
@click.option("-o", "--output", type=FOLDER, required=True, metavar="DIR", help="Folder to write to.")
@json_option
def command(save: tuple[tuple[str, ...], ...], as_json: bool, **options: Any) -> None:
    """Label images with an ENGINE, an exported model or pytorch:CHECKPOINT.

    INPUT is an image, a folder of images, or a quoted pattern such as 'frames/*.jpg'. NAME.png becomes
    NAME.labels.png, NAME.overlay.png and so on in DIR; no input is overwritten. If an image cannot be read,
    the command stops; the pictures of the images before stay. With --on-error skip it goes on, lists the files that
    failed, and exits with 6.
    """
    from fcn_deploy.workflows.predicting import predict

    kinds: Any = [kind for group in save for kind in group]
    with TerminalProgress() as progress:
        found = predict(**options, save=kinds, progress=progress)
    if as_json:
        print_json(found.to_json())
    else:
        failed = f"; {len(found.failed)} files failed" if found.failed else ""
        say(f"wrote {len(found.files)} files for {found.images} images into {options['output']}{failed}")
    found.require_complete()
