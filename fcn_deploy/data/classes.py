"""The file that names the classes of a net, and gives them colours."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fcn_deploy.artifacts.palette import Rgb, default_palette
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, read_bytes

_FORM = "name, or name,red,green,blue with colours 0..255"
# What the cells of a header line are called, in lower case.
_NAMES = {"name", "names", "class", "classes", "class_name", "class name", "classname", "label", "labels", "category"}
_CHANNELS = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
_COLORS = {"color", "colour", "hex", "color_hex", "hex_color"}
_HEX = re.compile(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", re.IGNORECASE | re.ASCII)
_NUMBERS = {"id", "index", "idx", "trainid", "train_id", "class_id", "label_id", "#"}


@dataclass(frozen=True)
class _Row:
    line: int
    fields: tuple[str, ...]


def read_class_names(path: str | os.PathLike[str], count: int | None = None) -> tuple[tuple[str, ...], tuple[Rgb, ...]]:
    """Reads the names of classes, and their colours.

    Args:
        path: CSV in UTF-8, with commas, semicolons or tabs, one class per line in the order of the labels: `name`, or
            `name,red,green,blue` with colours 0..255, or `name,#rrggbb`. A header line may name the columns. Empty
            lines are skipped.
        count: How many classes there must be; None for any number, at least one.

    Returns:
        Names and palette; a class without a colour gets that of the PASCAL VOC colour map, or the next one of it that
        is free if another class has it.

    Raises:
        InputError: The file cannot be read, a line is malformed, two classes have the same name or colour, or the
            number of classes is not `count`.
    """
    path = as_path(path)
    rows = _rows(_text(path), path)
    columns, rows = _columns(rows, count, path)
    if not rows:
        raise InputError(f"{path} names no class", expected=f"one per line: {_FORM}")
    names: dict[str, int] = {}
    colors: dict[Rgb, int] = {}
    palette: list[Rgb | None] = []
    for number, row in enumerate(rows):
        name, color = columns.read(row, number, path)
        if (before := names.setdefault(name, row.line)) != row.line:
            raise InputError(
                f"{path}, line {row.line}: two classes have the same name",
                got=f"{name!r}, as in line {before}",
                fix="give each class a name of its own",
            )
        if color is not None and (before := colors.setdefault(color, row.line)) != row.line:
            raise InputError(
                f"{path}, line {row.line}: two classes have the same colour",
                got=f"{_shown(color)}, as in line {before}",
                fix="give each class a colour of its own, or merge the two",
            )
        palette.append(color)
    if count not in (None, len(rows)):
        raise InputError(
            f"{path} does not name the net's classes",
            got=f"{len(rows)} names",
            expected=f"{count}, one per line in the order of the labels, without the ignored class",
        )
    return tuple(names), _filled(palette, set(colors))


@dataclass(frozen=True)
class _Columns:
    """Where the cells of a line are.

    Attributes:
        name: Of the class.
        color: Of red, green and blue, or three times that of a colour as #rrggbb; None if the file has none.
        number: Of the label; None if the file does not number the classes.
        header: Whether a header said so.
    """

    name: int = 0
    color: tuple[int, int, int] | None = (1, 2, 3)
    number: int | None = None
    header: bool = False

    def read(self, row: _Row, number: int, path: Path) -> tuple[str, Rgb | None]:
        """Returns the name and the colour of the class of a line."""
        fields, where = row.fields, f"{path}, line {row.line}"
        if not self.header and len(fields) == 2 and fields[0] and fields[1].startswith("#"):
            fields = (fields[0], *[fields[1]] * 3)
        if not self.header and len(fields) not in (1, 4):
            raise InputError(f"{where}: bad colour", got=",".join(fields[1:]), expected=_FORM)
        if len(fields) <= self.name or not fields[self.name]:
            raise InputError(f"{where}: a class without a name", got=",".join(fields), expected=_FORM)
        name = fields[self.name]
        if not name.isprintable():
            raise InputError(f"{where}: a name with control characters", got=repr(name), expected="plain text")
        if self.number is not None and fields[self.number : self.number + 1] != (str(number),):
            raise InputError(
                f"{where}: the classes are not in the order of the labels",
                got=",".join(fields),
                expected=f"label {number}",
                fix="sort the lines by label, from 0 on, without the ignored class",
            )
        if not self.header and (match := re.fullmatch(r"(.*\S)((?: +\d{1,3}){3})", name)):
            raise InputError(
                f"{where}: a colour that is separated by spaces",
                got=name,
                expected=_FORM,
                fix=f"write {match[1]},{','.join(match[2].split())}",
            )
        if self.color is None or not any(fields[min(self.color) :]):
            return name, None
        return name, _color([fields[column] if column < len(fields) else "" for column in self.color], where)


def _text(path: Path) -> str:
    data = read_bytes(path)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} is not a text file in UTF-8", got="UTF-16", fix="save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: not a text file in UTF-8", got=f"byte {data[error.start]:#x}", fix="save it as UTF-8"
        ) from error
    if text.lstrip()[:1] in ("[", "{") and _is_json(text):
        raise InputError(f"{path} is JSON, which is not read", expected=f"one class a line: {_FORM}")
    return text


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list | dict)
    except RecursionError:
        return True
    except ValueError:
        return False


def _rows(text: str, path: Path) -> list[_Row]:
    """Splits the lines by whichever separator makes most of them a name with a colour, or all of them a table."""
    best: list[_Row] = []
    most = -1
    failed: csv.Error | None = None
    for separator in ",;\t":
        rows = []
        try:
            reader = csv.reader(text.splitlines(), delimiter=separator, skipinitialspace=True, strict=True)
            for fields in reader:
                cells = tuple(field.strip() for field in fields)
                if any(cells):
                    rows.append(_Row(reader.line_num, cells))
        except csv.Error as error:  # of this separator: a quote in the middle of a cell, or without its end
            failed = failed or error
            continue
        colored = sum(len(row.fields) >= 4 or (len(row.fields) == 2 and "#" in row.fields[1]) for row in rows)
        widths = {len(row.fields) for row in rows}
        if len(widths) == 1 and widths != {1}:
            colored += len(rows)  # a table
        if colored > most:
            best, most = rows, colored
    if most < 0:
        raise InputError(
            f"{path} is not a list of class names", got=str(failed), fix="check the quotes in it"
        ) from failed
    return best


def _columns(rows: list[_Row], count: int | None, path: Path) -> tuple[_Columns, list[_Row]]:
    """Returns the columns as a header names them, or as they are without one, and the lines of classes."""
    if not rows:
        return _Columns(), rows
    cells = [cell.lower() for cell in rows[0].fields]
    known = _NAMES | _NUMBERS | _COLORS | set().union(*_CHANNELS)
    name = next((index for index, cell in enumerate(cells) if cell in _NAMES), None)
    if name is None or (len(cells) == 1 and count != len(rows) - 1):  # a class may well be called `label`
        return _Columns(), rows
    channels = [next((i for i, cell in enumerate(cells) if cell in channel), None) for channel in _CHANNELS]
    if len(cells) > 1 and channels == [None, None, None] and not set(cells) <= known:
        return _Columns(), rows
    number = next((index for index, cell in enumerate(cells) if cell in _NUMBERS), None)
    red, green, blue = channels
    if red is None or green is None or blue is None:
        if channels != [None, None, None]:
            raise InputError(
                f"{path}, line {rows[0].line}: the header lacks a colour",
                got=",".join(rows[0].fields),
                expected="name,red,green,blue",
            )
        whole = next((index for index, cell in enumerate(cells) if cell in _COLORS), None)
        if whole is not None:
            return _Columns(name, (whole, whole, whole), number, header=True), rows[1:]
        return _Columns(name, None, number, header=True), rows[1:]
    return _Columns(name, (red, green, blue), number, header=True), rows[1:]


def _color(fields: list[str], where: str) -> Rgb | None:
    if not any(fields):
        return None
    if len(set(fields)) == 1 and len(fields[0]) > 3:
        match = _HEX.fullmatch(fields[0])
        if match is None:
            raise InputError(f"{where}: bad colour", got=fields[0], expected="#rrggbb, or three columns of 0..255")
        red, green, blue = (int(channel, 16) for channel in match.groups())
        return red, green, blue
    if not all(re.fullmatch(r"\d{1,3}", field, re.ASCII) and int(field) <= 255 for field in fields):
        raise InputError(f"{where}: bad colour", got=",".join(fields), expected="red,green,blue, each 0..255")
    red, green, blue = map(int, fields)
    return red, green, blue


def _shown(color: Rgb) -> str:
    return ",".join(map(str, color))


def _filled(colors: list[Rgb | None], taken: set[Rgb]) -> tuple[Rgb, ...]:
    """Gives a colour to the classes that have none."""
    defaults = default_palette(len(colors))
    spare: Iterable[Rgb] = iter(default_palette(2 * len(colors) + 1)[len(colors) :])
    filled = []
    for color, default in zip(colors, defaults, strict=True):
        if color is None:
            color = default
            if color in taken:
                color = next(each for each in itertools.chain(spare) if each not in taken)
            taken.add(color)
        filled.append(color)
    return tuple(filled)
