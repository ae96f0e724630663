"""Parameters of the public functions: paths, shapes and folders, in the forms in which users write them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from fcn_deploy.artifacts.geometry import Padding, PadMode
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import StrPath, check_writable

Size: TypeAlias = tuple[int, int]


def input_file(path: StrPath) -> Path:
    """Returns the path of a file to read, checked before work starts.

    Raises:
        InputError: The file does not exist, or is a folder.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"cannot read {file}", got="a folder" if file.is_dir() else "no such file")
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
    file = Path(path)
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
    paths = (Path(each) for each in inputs if isinstance(each, str | os.PathLike))
    if any(path.resolve() == Path(output).resolve() for path in paths):
        raise UsageError("the output would replace an input", got=os.fspath(output), fix="give it another name")


def image_shape(shape: str | ImageShape) -> ImageShape:
    """Returns the shape that `NxHxW` or `HxW` stands for.

    Raises:
        UsageError: It is neither.
    """
    return shape if isinstance(shape, ImageShape) else ImageShape.parse(shape)


def image_size(size: str | Size | None) -> Size | None:
    """Returns [height, width] of `HxW`, or of two integers.

    Raises:
        UsageError: It is neither.
    """
    if size is None:
        return None
    if isinstance(size, str):
        if size.count("x") != 1:
            raise UsageError("bad size", got=repr(size), expected="HxW, such as 360x480")
        shape = ImageShape.parse(size)
    else:
        height, width = size
        shape = ImageShape(1, height, width)
    return shape.height, shape.width


def image_folder(
    images: StrPath | ImageFolder, *, max_images: int | None = None, size: Size | None = None, recursive: bool = False
) -> ImageFolder:
    """Returns the images of a folder; an ImageFolder stays what it is.

    Args:
        images: A folder, or one that has been opened.
        max_images: At most so many, evenly spread; at least 1.
        size: [height, width] to resize them to.
        recursive: Whether sub-folders are searched too.

    Raises:
        InputError: The folder does not exist, or has no images.
        UsageError: `max_images` is less than 1.
    """
    if max_images is not None and max_images < 1:
        raise UsageError("bad `max_images`", got=max_images, expected="1 or more")
    if isinstance(images, ImageFolder):
        return images
    return ImageFolder.open(Path(images), max_images=max_images, size=size, recursive=recursive)


def padding(model: str | None, size_divisor: int | None, pad_mode: PadMode | None) -> Padding | None:
    """Returns how images are padded for a custom net; None if they are not.

    Raises:
        UsageError: There is a divisor without a custom net, or a mode without a divisor.
    """
    if pad_mode is not None and size_divisor is None:
        raise UsageError("`pad_mode` needs a divisor", got="`pad_mode` alone", expected="`size_divisor` with it")
    if size_divisor is None:
        return None
    if model is None:
        expected = "`model`, for a net of your own"
        raise UsageError("the published nets work at every size", got="`size_divisor`", expected=expected)
    return Padding(size_divisor, pad_mode or "edge")
