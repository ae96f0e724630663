"""The file that names the classes of a net, and gives them colours."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from fcn_deploy.artifacts.palette import Rgb, default_palette
from fcn_deploy.errors import InputError
from fcn_deploy.files import read_bytes


def read_class_names(path: str | os.PathLike[str], count: int | None = None) -> tuple[tuple[str, ...], tuple[Rgb, ...]]:
    """Reads the names of classes, and their colours.

    Args:
        path: CSV in UTF-8, one class per line in the order of the labels: `name`, or `name,red,green,blue` with colours
            0..255. Empty lines are skipped.
        count: How many classes there must be; None for any number, at least one.

    Returns:
        Names and palette; a class without a colour gets that of the PASCAL VOC colour map.

    Raises:
        InputError: The file cannot be read, a colour is malformed, or the number of classes is not `count`.
    """
    path = Path(path)
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
            expected=f"{count}, one per line in the order of the labels, without the ignored class",
        )
    if not rows:
        raise InputError(f"{path} names no class", expected="one per line: name, or name,red,green,blue")
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
