"""`fcn-deploy predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from fcn_deploy.workflows.predictions import Predictions


@click.command("predict", short_help="Label images and video, and write pictures.")
@click.argument("engine", type=NAME)
@click.argument("inputs", type=NAME, nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--save",
    type=KindsType(),
    multiple=True,
    default=("labels", "overlay"),
    show_default=True,
    help="What to write of each image or video: labels (index image), color (mask), overlay, panel (image, overlay, "
    "legend); and legend, one picture of all classes.",
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
    help="Most pixels that an image or a frame may have, as a guard against files that fill the memory.  "
    "[default: 178956970]",
)
@recursive_option
@click.option(
    "--every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Take every N-th frame of a video, camera or stream, and every N-th image.",
)
@click.option("--max-frames", type=click.IntRange(1), help="Label at most so many frames of each, and so many images.")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Run so many neighbours of equal size together.",
)
@click.option("--display", is_flag=True, help="Show the overlay in a window; closing it or q ends the run.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do at a file that is no image, is damaged or does not fit: stop, or skip it, of a video the damaged "
    "frames, go on, and exit 6 in the end.",
)
@model_options
@weights_options
@threads_option
@gpu_options
@click.option("-o", "--output", type=FOLDER, required=True, metavar="DIR", help="Folder to write to.")
@json_option
def command(save: tuple[tuple[str, ...], ...], as_json: bool, **options: Any) -> None:
    """Label images and video with an ENGINE, an exported model or pytorch:CHECKPOINT.

    INPUT is an image, a video, a folder of them, or a quoted pattern such as 'frames/**/*.jpg'; or alone, a camera,
    camera:0, or a stream, rtsp://HOST/PATH. NAME.png becomes NAME.labels.png, NAME.overlay.png and so on in DIR, and
    NAME.mp4 becomes NAME.labels.mp4, NAME.overlay.mp4 with the same timing; no input is overwritten. If a file cannot
    be read, the command stops; what was made of the files before stays. With --on-error skip it goes on, lists what
    failed, and exits with 6. Ctrl-C ends a camera or a stream, and what it has given is written.
    """
    from fcn_deploy.workflows.predicting import predict

    kinds: Any = [kind for group in save for kind in group]
    with TerminalProgress() as progress:
        found = predict(**options, save=kinds, progress=progress)
    if as_json:
        print_json(found.to_json())
    else:
        failed = f"; {len(found.failed)} files failed" if found.failed else ""
        say(f"wrote {len(found.files)} files for {_counted(found)} into {options['output']}{failed}")
    found.require_complete()


def _counted(found: Predictions) -> str:
    videos = f"{found.frames - found.images} frames of video"
    if not found.videos:
        return f"{found.images} images"
    return f"{found.images} images and {videos}" if found.images else videos
