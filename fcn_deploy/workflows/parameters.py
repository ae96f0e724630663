"""Parameters of the public functions: paths, shapes and folders, in the forms in which users write them."""

from __future__ import annotations

import importlib.util
import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from fcn_deploy.artifacts.geometry import AutoPadding, Padding, PadMode, SizeDivisor
from fcn_deploy.artifacts.normalization import Color, Triple
from fcn_deploy.artifacts.outputs import Outputs, ResizeMode
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import DependencyError, InputError, UsageError
from fcn_deploy.evaluation.gates import EXAMPLES, Criterion, GateOption
from fcn_deploy.files import StrPath, as_path, check_file, check_writable, real_path
from fcn_deploy.installation import install_command
from fcn_deploy.models.weights_file import check_weights_file

Size: TypeAlias = tuple[int, int]


def input_file(path: StrPath) -> Path:
    """Returns a path that is to be read, checked before work starts; a pipe will do.

    Raises:
        InputError: There is no such file, it is a folder, or its folder may not be looked into.
    """
    file = as_path(path)
    check_file(file)
    return file


def weights_file(path: StrPath) -> Path:
    """Returns the path of a checkpoint, checked before torch is imported.

    Raises:
        DependencyError: torch is not installed.
        InputError: The file cannot be read, or is plainly something else.
    """
    file = input_file(path)
    check_weights_file(file)
    require_torch()
    return file


def output_file(path: StrPath | None, suffixes: Iterable[str], reads: Iterable[object] = ()) -> Path | None:
    """Returns the path of a file to write, checked before work starts.

    Args:
        path: What the caller named; None if nothing is to be written.
        suffixes: What its name may end in; anything if empty.
        reads: What the function reads; values that are not paths are skipped.

    Raises:
        InputError: It cannot be written.
        UsageError: Its suffix does not fit, or it is one of the files that are read.
    """
    if path is None:
        return None
    file = as_path(path, "output")
    check_distinct(file, *reads)
    check_suffix(file, *suffixes)
    check_writable(file)
    return file


def check_suffix(path: Path, *suffixes: str) -> None:
    """Checks that the suffix of an output fits its content.

    Raises:
        UsageError: Its name has another suffix.
    """
    if suffixes and path.suffix not in suffixes:
        expected = f"a name that ends in {' or '.join(suffixes)}"
        raise UsageError("the output's suffix does not fit", got=str(path), expected=expected)


def check_distinct(output: StrPath, *inputs: object) -> None:
    """Checks that the output of a function is not one of its inputs.

    Raises:
        UsageError: It is.
    """
    paths = (as_path(each) for each in inputs if isinstance(each, str | os.PathLike))
    if any(real_path(path) == real_path(Path(output)) for path in paths):
        raise UsageError("the output would replace an input", got=os.fspath(output), fix="give it another name")


def image_shape(shape: str | ImageShape | Sequence[int], name: str = "shape") -> ImageShape:
    """Returns the shape that `NxHxW` or `HxW` stands for, as text or as integers.

    Args:
        shape: The shape.
        name: The parameter that it is the value of.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(shape, ImageShape):
        return shape
    try:
        if isinstance(shape, str):
            return ImageShape.parse(shape)
        sizes = [operator.index(size) for size in shape]
        if len(sizes) in (2, 3):
            return ImageShape(*([1] * (3 - len(sizes))), *sizes)
    except (TypeError, InputError, UsageError):
        pass
    expected = "NxHxW or HxW, such as 4x512x512 or 360x480"
    raise UsageError(f"bad shape in `{name}`", got=repr(shape), expected=expected)


def image_size(size: str | Size | None, name: str) -> Size | None:
    """Returns [height, width] of `HxW`, or of two integers.

    Args:
        size: The size; None stays None.
        name: The parameter that it is the value of.

    Raises:
        UsageError: It is neither.
    """
    if size is None:
        return None
    try:
        height, width = size.split("x") if isinstance(size, str) else size
        shape = ImageShape(1, _whole(height), _whole(width))
    except (TypeError, ValueError, InputError) as error:
        expected = "HxW, such as 360x480"
        raise UsageError(f"bad size in `{name}`", got=repr(size), expected=expected) from error
    return shape.height, shape.width


def _whole(number: str | int) -> int:
    return int(number) if isinstance(number, str) else operator.index(number)


def triple(values: Sequence[float] | None, name: str) -> Triple | None:
    """Returns three numbers, one for each channel; None stays None.

    Raises:
        UsageError: They are not.
    """
    if values is None:
        return None
    try:
        first, second, third = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"bad `{name}`", got=repr(values), expected="three numbers") from error
    return first, second, third


def channel_order(color: str | None) -> Color | None:
    """Returns `RGB` or `BGR`, however it is written; None stays None.

    Raises:
        UsageError: It is neither.
    """
    if color is None:
        return None
    orders: dict[str, Color] = {"rgb": "RGB", "bgr": "BGR"}
    found = orders.get(str(color).lower())
    if found is None:
        raise UsageError("unknown `color`", got=repr(color), expected="rgb or bgr")
    return found


def criterion(value: str | Criterion, name: str) -> Criterion:
    """Returns a measure and its limit, as text or as an object.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(value, Criterion):
        return value
    if not isinstance(value, str):
        raise UsageError(f"bad `{name}`", got=repr(value), expected=EXAMPLES)
    return Criterion.parse(value)


def gate_options(gate: Sequence[str | GateOption | Criterion] | str | GateOption | Criterion) -> list[GateOption]:
    """Returns gates as they are asked for: one or several, as text or as objects.

    Raises:
        UsageError: One is not a gate.
    """
    listed = [gate] if isinstance(gate, str | GateOption | Criterion) else list(gate)
    return [_gate_option(each) for each in listed]


def _gate_option(gate: str | GateOption | Criterion) -> GateOption:
    if isinstance(gate, GateOption):
        return gate
    if isinstance(gate, Criterion):
        return GateOption(gate)
    if not isinstance(gate, str):
        raise UsageError("bad `gate`", got=repr(gate), expected="text such as agreement>=98%, or a GateOption")
    return GateOption.parse(gate)


def image_folder(
    images: StrPath | ImageFolder, *, max_images: int | None = None, size: Size | None = None, recursive: bool = False
) -> ImageFolder:
    """Returns the images of a folder.

    Args:
        images: A folder, or one that has been opened.
        max_images: At most so many, evenly spread; at least 1.
        size: [height, width] to resize them to; None leaves the size of a folder that has been opened.
        recursive: Whether sub-folders are searched too.

    Raises:
        InputError: There is no such folder, or it has no images.
        UsageError: `max_images` is less than 1.
    """
    check_max_images(max_images)
    if not isinstance(images, ImageFolder):
        return ImageFolder.open(images, max_images=max_images, size=size, recursive=recursive)
    paths = images.paths
    if max_images is not None and max_images < len(paths):
        paths = tuple(paths[index * len(paths) // max_images] for index in range(max_images))
    return replace(images, paths=paths, size=size or images.size)


def percentiles(percentile: Sequence[float] | float) -> tuple[float, ...]:
    """Returns percentiles, of which there may be one alone."""
    return (percentile,) if isinstance(percentile, int | float) else tuple(percentile)


def check_max_images(max_images: int | None) -> None:
    """Checks a number of images.

    Raises:
        UsageError: It is not an integer of at least 1.
    """
    if max_images is not None and not (isinstance(max_images, int) and max_images >= 1):
        raise UsageError("bad `max_images`", got=repr(max_images), expected="1 or more")


def require_torch() -> None:
    """Checks, before work starts, that PyTorch is installed.

    Raises:
        DependencyError: It is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise DependencyError("torch is not installed", fix=install_command("host"))


def padding(
    model: str | None, size_divisor: SizeDivisor | None, pad_mode: PadMode | None
) -> Padding | AutoPadding | None:
    """Returns how images are padded for a custom net; None if they are not.

    Raises:
        UsageError: There is a divisor without a custom net, a mode without a divisor, or a divisor below 2.
    """
    if pad_mode is not None and size_divisor is None:
        raise UsageError("`pad_mode` needs a divisor", got="`pad_mode` alone", expected="`size_divisor` with it")
    if size_divisor is None:
        return None
    if model is None:
        expected = "`model`, for a net of your own"
        raise UsageError("the published nets work at every size", got="`size_divisor`", expected=expected)
    if size_divisor == "auto":
        return AutoPadding(pad_mode or "edge")
    if isinstance(size_divisor, bool) or not isinstance(size_divisor, int) or size_divisor < 2:
        raise UsageError("bad `size_divisor`", got=repr(size_divisor), expected="2 or more, or auto")
    return Padding(size_divisor, pad_mode or "edge")


def outputs(model: str | None, logits: str | int | None, resize_logits: ResizeMode | None) -> Outputs | None:
    """Returns what is taken from what a custom net returns; None for the logits as they are.

    Raises:
        UsageError: There is one of the two without a custom net, or it is of another kind.
    """
    if logits is None and resize_logits is None:
        return None
    if model is None:
        given = "`logits`" if logits is not None else "`resize_logits`"
        raise UsageError(
            "the published nets return their logits, of the size of the image",
            got=given,
            expected="`model`, for a net of your own",
        )
    if logits is not None and (isinstance(logits, bool) or not isinstance(logits, str | int) or logits == ""):
        raise UsageError("bad `logits`", got=repr(logits), expected="a name or an index, such as out or 0")
    if resize_logits not in (None, "bilinear", "nearest"):
        raise UsageError("bad `resize_logits`", got=repr(resize_logits), expected="bilinear or nearest")
    return Outputs(None if logits is None else str(logits), resize_logits)
