"""What the values of ground truth mean, if they are not the net's labels: a map from values to classes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import as_path, exists, read_bytes

# Each value of the truth, and the class that it means; None for "not labelled".
LabelMap: TypeAlias = Mapping[int, int | None]
Side: TypeAlias = int | str | None

_IGNORE = ("ignore", "ignored", "void", "unlabelled", "unlabeled")
_RANGE = re.compile(r"(\d{1,10})\.\.(\d{1,10})", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,10}", re.ASCII)
_FORM = "such as 255=1,7=ignore, or a file with one such pair a line"

# Ids of the 19 classes that are evaluated, in the order of their train ids; the others do not count.
# https://github.com/mcordts/cityscapesScripts, helpers/labels.py
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

PRESETS: dict[str, LabelMap] = {
    "cityscapes-trainid": {
        **dict.fromkeys((-1, *range(35), 255)),
        **{number: index for index, number in enumerate(_CITYSCAPES)},
    },
    # 0 is "other objects", 1 to 150 the classes. https://github.com/CSAILVision/sceneparsing
    "ade20k": {0: None, **{number + 1: number for number in range(150)}},
}


def read_label_map(
    label_map: str | os.PathLike[str] | Mapping[Side, Side] | None, classes: Sequence[str], ignored: Sequence[int] = ()
) -> dict[int, int | None]:
    """Reads a map from values of the truth to classes.

    Args:
        label_map: Pairs as text, such as `255=1,7=ignore`; the name of a preset, `cityscapes-trainid` or `ade20k`; a
            file with a pair a line (`255=1`, or CSV) or a JSON object; a mapping; or None for no map. On either side is
            a number or a name of `classes`; on the right also `ignore`. `1..3=0..2` is a range.
        classes: Names of the net's classes, in the order of the labels.
        ignored: Labels that do not count, which may stand on the right.

    Returns:
        The class of each value that the map names; None for a value that does not count.

    Raises:
        InputError: The file cannot be read, or a side is not understood; the line is named.
        UsageError: The text is no map.
    """
    if label_map is None:
        return {}
    found: dict[int, int | None] = {}
    stated: dict[int, str] = {}
    for left, right, where in _pairs(label_map):
        text = f"{_text(left)}={_text(right)}"
        for value, target in _expanded(left, right, where, classes):
            if target is not None and not 0 <= target < len(classes):
                if target not in ignored:
                    raise InputError(
                        f"{where}: there is no such class",
                        got=text,
                        expected=f"0..{len(classes) - 1}, a name of a class, or ignore, right of `=`",
                    )
                target = None
            if value in stated and found[value] != target:
                raise InputError(f"{where}: the value {value} has two meanings", got=f"{stated[value]} and {text}")
            stated[value] = text
            found[value] = target
    return found


def check_label_map(label_map: str | os.PathLike[str] | Mapping[Side, Side] | None) -> None:
    """Checks, before the classes are known, that a map can be read and has the form of one.

    Raises:
        InputError: The file cannot be read, or a line is no pair.
        UsageError: The text is no map.
    """
    if label_map is not None:
        list(_pairs(label_map))


def read_once(
    label_map: str | os.PathLike[str] | Mapping[Side, Side] | None,
) -> str | os.PathLike[str] | Mapping[Side, Side] | None:
    """Returns a map that can be read again: of a pipe, which cannot, its pairs as text.

    Raises:
        InputError: The pipe cannot be read, or a line is no pair.
    """
    name = os.fspath(label_map) if isinstance(label_map, str | os.PathLike) else ""
    if "\0" in name or not os.access(name, os.F_OK) or Path(name).is_file():
        return label_map
    return ",".join(f"{_text(left)}={_text(right)}" for left, right, _ in _pairs(name))


def _pairs(label_map: str | os.PathLike[str] | Mapping[Side, Side]) -> Iterator[tuple[Side, Side, str]]:
    """Yields left side, right side, and where they stand."""
    if isinstance(label_map, Mapping):
        yield from ((left, right, "`label_map`") for left, right in label_map.items())
        return
    if not isinstance(label_map, str | os.PathLike):
        raise UsageError("bad `label_map`", got=repr(label_map)[:80], expected=f"text {_FORM}; or a mapping")
    name = os.fspath(label_map)
    if not name.strip():
        raise UsageError("`label_map` is empty", expected=_FORM, fix="leave it out")
    path = as_path(name, "`label_map`")
    if isinstance(label_map, str | Path) and name in PRESETS:
        yield from ((left, right, f"`label_map` {name}") for left, right in PRESETS[name].items())
        return
    if "=" in name and not os.access(path, os.F_OK):  # pairs may be longer than a name can be
        for item in name.split(","):
            if item.strip() in PRESETS:
                yield from _pairs(item.strip())
            elif item.strip():
                left, sign, right = item.partition("=")
                if not sign or not left.strip() or not right.strip():
                    raise UsageError("`label_map` is not understood", got=repr(item), expected=_FORM)
                yield left.strip(), right.strip(), "`label_map`"
        return
    if not exists(path):
        presets = " or ".join(PRESETS)
        raise UsageError(
            "`label_map` is neither a file nor a map", got=repr(name), expected=f"{presets}, pairs {_FORM}"
        )
    yield from _file(path)


def _object(pairs: list[tuple[str, Side]]) -> list[tuple[Side, Side]]:
    # A list of pairs, so that a key that occurs twice is seen.
    return list(pairs)


def _file(path: Path) -> Iterator[tuple[Side, Side, str]]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            yield from ((left, right, str(path)) for left, right in json.loads(text, object_pairs_hook=_object))
            return
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a label map", got=str(error), expected=_FORM) from error
    pairs = 0
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        sign = next((sign for sign in "=;\t," if sign in line), None)
        sides = [_unquoted(side.strip()) for side in line.split(sign)] if sign else [line]
        if len(sides) != 2 or not all(sides):
            raise InputError(f"{where}: not a pair", got=repr(line), expected="value=class, such as 255=1 or 7=ignore")
        pairs += 1
        yield sides[0], sides[1], where
    if not pairs:
        raise InputError(f"{path} is an empty label map", expected=_FORM)


def _unquoted(side: str) -> str:
    return side[1:-1].strip() if len(side) > 1 and side[0] == side[-1] == '"' else side


def _expanded(left: Side, right: Side, where: str, classes: Sequence[str]) -> Iterator[tuple[int, int | None]]:
    first = _RANGE.fullmatch(left) if isinstance(left, str) else None
    if first is None:
        value = _number(left, where, classes)
        if value is None:
            raise InputError(f"{where}: not a value", got=_text(left), expected="a number or a name of a class")
        yield value, _number(right, where, classes)
        return
    values = range(int(first[1]), int(first[2]) + 1)
    if not 0 < len(values) <= 1 << 16:
        raise InputError(f"{where}: bad range", got=_text(left), expected="up to 65536 values, smallest first")
    second = _RANGE.fullmatch(right) if isinstance(right, str) else None
    if second is None:
        yield from ((value, _number(right, where, classes)) for value in values)
        return
    targets = range(int(second[1]), int(second[2]) + 1)
    if len(targets) != len(values):
        raise InputError(f"{where}: the ranges differ in length", got=f"{_text(left)}={_text(right)}")
    yield from zip(values, targets, strict=True)


def _number(side: Side, where: str, classes: Sequence[str]) -> int | None:
    """Returns the number that a side stands for; None for "not labelled". A class may be called `void`."""
    if side is None or (isinstance(side, int) and not isinstance(side, bool)):
        return side
    name = str(side)
    if _NUMBER.fullmatch(name):
        return int(name)
    if name in classes:
        return classes.index(name)
    if name.lower() in _IGNORE:
        return None
    shown = ", ".join(classes[:8]) + (f" and {len(classes) - 8} more" if len(classes) > 8 else "")
    raise InputError(
        f"{where}: neither a number nor a name of a class",
        got=repr(name[:80]),
        expected=f"a number, ignore, or {shown}",
    )


def _text(side: Side) -> str:
    return "ignore" if side is None else str(side)
