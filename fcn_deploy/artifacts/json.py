"""How artifacts are read from JSON: their format number, and the checks that every reader shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from typing import Any

from fcn_deploy.errors import InputError

FORMAT = 1


def check_format(data: object, what: str) -> Mapping[str, Any]:
    """Returns `data` as a mapping if it is JSON of the format this version reads.

    Raises:
        InputError: `data` is not a JSON object, or its `format` is not 1.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{what} is not a JSON object", got=type(data).__name__)
    if data.get("format") != FORMAT:
        raise InputError(
            f"{what} has an unknown format",
            got=f'"format": {json.dumps(data.get("format"))}',
            expected=f'"format": {FORMAT}',
            fix="make it again with this version of fcn-deploy, or install the version that wrote it",
        )
    return data


def require(condition: bool, what: str, got: object, expected: str) -> None:
    """Raises InputError unless `condition` holds; `got` is shown as Python writes it."""
    if not condition:
        raise InputError(what, got=repr(got), expected=expected)


def positive(number: float | None, optional: bool) -> bool:
    """Returns whether a number is above 0; None counts as such where it is optional."""
    return optional if number is None else number > 0


def known_fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of `data` the dataclass `kind` has fields for; a later version may have added more."""
    names = {field.name for field in dataclass_fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def integer(value: object, what: str) -> int:
    """Returns `value` if it is an integer, else raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(what, got=repr(value), expected="an integer")
    return value


def strings(values: object, what: str) -> tuple[str, ...]:
    """Returns `value` as a tuple if it is a list of strings, else raises InputError."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise InputError(what, got=repr(values), expected="a list of strings")
    return tuple(values)
