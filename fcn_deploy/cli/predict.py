"""`fcn-deploy predict`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from fcn_deploy.cli.console import TerminalProgress, print_json
from fcn_deploy.cli.options import (
    PATH,
    SizeType,
    gpu_from,
    gpu_options,
    json_option,
    model_from,
    model_options,
    threads_option,
)

_KIND = click.Choice(("labels", "color", "overlay", "panel"))


class KindsType(click.ParamType[tuple[str, ...]]):
    """`KIND,...`."""

    name = "KIND,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parses kinds of pictures."""
        if isinstance(value, tuple):
            return value
        return tuple(_KIND.convert(kind, param, ctx) for kind in value.split(","))


@click.command("predict", short_help="Label images and write pictures.")
@click.argument("engine")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
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
    help="Run larger images in tiles of this size, rounded up to the net's stride, for memory that does not grow with "
    "the image. The labels are those of the image as a whole.",
)
@model_options
@threads_option
@gpu_options
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder to write to.")
@json_option
def command(
    engine: str,
    inputs: tuple[str, ...],
    save: tuple[tuple[str, ...], ...],
    tile: tuple[int, int] | None,
    threads: int | None,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Label images with an ENGINE, an exported model or pytorch:CHECKPOINT.

    INPUT is an image, a folder of images, or a quoted pattern such as 'frames/*.jpg'. NAME.png becomes
    NAME.labels.png, NAME.overlay.png and so on in DIR; nothing is written over an input. Where an image
    cannot be read the command stops; what it wrote for those before stays.
    """
    from fcn_deploy.data.folders import find_images
    from fcn_deploy.data.images import read_image
    from fcn_deploy.errors import FcnDeployError
    from fcn_deploy.evaluation.parity import run
    from fcn_deploy.files import output_folder, write_bytes
    from fcn_deploy.reporting.pictures import KINDS, encode_png
    from fcn_deploy.workflows import references as sources

    paths = find_images(inputs)
    kinds = tuple(dict.fromkeys(kind for group in save for kind in group))
    targets = _targets(paths, kinds, output)
    written = []
    opened = sources.open_all((engine,), **model_from(options), **gpu_from(options), threads=threads, tile=tile)
    with opened[engine] as segmenter, output_folder(output):
        for done, path in enumerate(TerminalProgress().track(paths, len(paths), "predicting")):
            try:
                image = read_image(path)
                labels = segmenter(image) if tile else run(segmenter, image).labels
                for kind, target in zip(kinds, targets[path], strict=True):
                    write_bytes(target, encode_png(KINDS[kind](image, labels, segmenter.spec)))
                    written.append(str(target))
            except FcnDeployError as error:
                raise type(error)(
                    f"stopped with {done} of {len(paths)} images done: {error.what}",
                    got=error.got,
                    expected=error.expected,
                    fix=error.fix,
                ) from error
    if as_json:
        print_json({"engine": engine, "images": len(paths), "files": written})
    else:
        click.echo(f"wrote {len(written)} files for {len(paths)} images into {output}")


def _targets(paths: Iterable[Path], kinds: tuple[str, ...], output: Path) -> dict[Path, list[Path]]:
    """The files each image makes; two images that would make the same, or one that is an input, is an error."""
    from fcn_deploy.errors import InputError

    inputs = {path.resolve() for path in paths}
    sources: dict[str, Path] = {}
    targets = {}
    for path in paths:
        if path.stem in sources:
            raise InputError(
                "two images would make the same files", got=f"{sources[path.stem]} and {path}", fix="run them apart"
            )
        sources[path.stem] = path
        targets[path] = [output / f"{path.stem}.{kind}.png" for kind in kinds]
        over = [target for target in targets[path] if target.resolve() in inputs]
        if over:
            raise InputError("an output would replace an input", got=str(over[0]), fix="choose another folder with -o")
    return targets
