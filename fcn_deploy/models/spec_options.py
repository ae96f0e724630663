"""What a checkpoint's tensors do not say, from what the user says and from defaults that are owned up to."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fcn_deploy.artifacts.geometry import AT_ONCE, Geometry, Padding
from fcn_deploy.artifacts.normalization import TORCHVISION, Color, Normalization, Triple
from fcn_deploy.artifacts.palette import Rgb, default_palette
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import read_bytes
from fcn_deploy.models.checkpoint import Checkpoint
from fcn_deploy.models.custom import CustomNet
from fcn_deploy.models.layouts import layout_normalization

_log = logging.getLogger(__name__)
_IGNORE_INDEX = 255  # PASCAL VOC's and Cityscapes' label for "not labelled"


@dataclass(frozen=True)
class SpecOptions:
    """What the user says about a checkpoint; None leaves it to the checkpoint or the default.

    Attributes:
        num_classes: Checked against the tensors.
        class_names: A CSV file, one class a line: `name` or `name,red,green,blue`.
        ignore_index: The label that stands for "not labelled".
        color: Channel order of the net's input.
        scale: Factor for pixels 0..255.
        mean: Per channel, after scaling.
        std: Per channel.
        at_once: Whether the skips were scaled, as in nets trained at once; tensors do not tell.
        input_padding: 0 or 100 where it is not that of the checkpoint's layout.
        model: What makes a net of the user's own, `package.module:callable`.
        padding: How images are padded for that net.
    """

    num_classes: int | None = None
    class_names: Path | None = None
    ignore_index: int | None = None
    color: Color | None = None
    scale: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    at_once: bool = False
    input_padding: int | None = None
    model: str | None = None
    padding: Padding | None = None

    def __post_init__(self) -> None:
        if self.model is None and self.padding is not None:
            raise UsageError("the published nets work at every size", got="--size-divisor", fix="leave it out")
        if self.model is not None and (self.at_once or self.input_padding is not None):
            raise UsageError(
                "--at-once and --input-padding are of the published nets", got="--model with them", fix="leave them out"
            )


def make_spec(checkpoint: Checkpoint | CustomNet, options: SpecOptions | None = None) -> ModelSpec:
    """Puts together the spec of a net.

    The user's word comes first, then the spec the checkpoint carries, then what its layout says, then the defaults; a
    normalisation that rests on a default is marked `assumed` and warned about.

    Raises:
        InputError: The number of classes or names is not that of the net, or the names cannot be read.
    """
    options = options or SpecOptions()
    known = checkpoint.spec
    count = checkpoint.num_classes
    if options.num_classes not in (None, count):
        raise InputError("the checkpoint has another number of classes", got=count, expected=f"{options.num_classes}")
    if options.class_names:
        classes, palette = read_class_names(options.class_names, count)
    elif known:
        classes, palette = known.classes, known.palette
    else:
        classes, palette = tuple(f"class_{index}" for index in range(count)), default_palette(count)
    ignore_index = options.ignore_index
    if ignore_index is None:
        ignore_index = known.ignore_index if known else _IGNORE_INDEX
    return ModelSpec(
        variant=checkpoint.variant,
        num_classes=count,
        classes=classes,
        palette=palette,
        ignore_index=ignore_index,
        normalization=_normalization(
            options, known.normalization if known else layout_normalization(checkpoint.info.layout)
        ),
        checkpoint=checkpoint.info,
        **_architecture(checkpoint, options),
    )


def _architecture(checkpoint: Checkpoint | CustomNet, options: SpecOptions) -> dict[str, Any]:
    if isinstance(checkpoint, CustomNet):
        own = {"model": checkpoint.name, "padding": checkpoint.padding}
        return {"stride": None, "width": None, "geometry": None, **own}
    geometry = _geometry(checkpoint, options)
    return {"stride": checkpoint.stride, "width": checkpoint.width, "geometry": geometry}


def _geometry(checkpoint: Checkpoint, options: SpecOptions) -> Geometry:
    if options.at_once:
        return replace(checkpoint.geometry, skip_scales=AT_ONCE)
    if checkpoint.spec is not None and checkpoint.spec.geometry is not None:
        return replace(checkpoint.geometry, skip_scales=checkpoint.spec.geometry.skip_scales)
    return checkpoint.geometry


def _normalization(options: SpecOptions, known: Normalization | None) -> Normalization:
    base = known or TORCHVISION
    # The channel order does not count: RGB is what every reader of images gives, and BGR is always said.
    assumed = known is None and None in (options.scale, options.mean, options.std)
    normalization = Normalization(
        color=options.color or base.color,
        scale=base.scale if options.scale is None else options.scale,
        mean=options.mean or base.mean,
        std=options.std or base.std,
        assumed=assumed,
    )
    _check_plausible(normalization)
    if assumed:
        _log.warning(
            "the checkpoint does not say how its images were normalised; assuming scale %.6g, mean %s, std %s, %s. "
            "If it was trained otherwise, say so with --scale, --mean, --std and --color",
            normalization.scale,
            _numbers(normalization.mean),
            _numbers(normalization.std),
            normalization.color,
        )
    return normalization


def _check_plausible(normalization: Normalization) -> None:
    """Refuses a mean or deviation that no pixel has after scaling: they belong to another scale."""
    brightest = 255 * normalization.scale
    for name, values in (("mean", normalization.mean), ("std", normalization.std)):
        # A deviation of 1 stands for "none", whatever the scale.
        if any(value > brightest * 1.001 and value != 1 for value in values):
            raise InputError(
                f"the {name} and the scale do not go together",
                got=f"--{name} {_numbers(values)} for pixels scaled to 0..{brightest:g}",
                expected=f"at most {brightest:g}",
                fix="state --mean, --std and --scale together: --scale 1 where they are of pixels 0..255",
            )


def _numbers(values: Triple) -> str:
    return ",".join(f"{value:g}" for value in values)


def read_class_names(path: Path, count: int | None = None) -> tuple[tuple[str, ...], tuple[Rgb, ...]]:
    """Reads names, and colours where given, of classes.

    Args:
        path: CSV, one class a line: `name`, or `name,red,green,blue`; empty lines do not count.
        count: How many there must be; where None, as many as there are, but at least one.

    Returns:
        Names and palette; classes without a colour get that of the PASCAL VOC map.

    Raises:
        InputError: The file cannot be read, a line is malformed, or there are more or fewer names.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file", got=str(error), expected="UTF-8") from error
    try:
        rows = [row for row in csv.reader(text.splitlines()) if any(field.strip() for field in row)]
    except csv.Error as error:
        raise InputError(f"{path} is not a list of class names", got=str(error)) from error
    if count not in (None, len(rows)):
        raise InputError(
            f"{path} does not name the net's classes",
            got=f"{len(rows)} names",
            expected=f"{count}, one a line in the order of the labels, without the ignored class",
        )
    if not rows:
        raise InputError(f"{path} names no class", expected="one a line: name, or name,red,green,blue")
    defaults = default_palette(len(rows))
    names, palette = [], []
    for number, (row, default) in enumerate(zip(rows, defaults, strict=True), start=1):
        names.append(row[0].strip())
        palette.append(_color(row[1:], path, number) if len(row) > 1 else default)
    return tuple(names), tuple(palette)


def _color(fields: list[str], path: Path, number: int) -> Rgb:
    try:
        red, green, blue = (int(field) for field in fields)
    except ValueError:
        raise InputError(
            f"{path}, class {number}: bad colour", got=",".join(fields), expected="name,red,green,blue"
        ) from None
    return red, green, blue
