"""How artifacts are read from JSON: their format number, and the checks that every reader shares."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import fields as dataclass_fields
from typing import Any

from fcn_deploy.errors import ArtifactError, InputError

FORMAT = 1


def check_format(data: object, what: str, requires: Collection[str] = ()) -> Mapping[str, Any]:
    """Returns `data` as a mapping if it is a JSON object of the format that this version reads.

    Args:
        data: An artifact. Its optional `requires` lists newer keys without which it would be misunderstood.
        what: What to call it in an error.
        requires: The keys in `requires` that this version knows.

    Raises:
        ArtifactError: It requires a key that this version does not know.
        InputError: `data` is not a JSON object, its `format` is not 1, or `requires` is no list of strings.
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
    unknown = [name for name in strings(data.get("requires", []), f"{what}: requires") if name not in requires]
    if unknown:
        raise ArtifactError(
            f"this version of fcn-deploy would misunderstand {what}",
            got=f"it requires {', '.join(map(repr, unknown))}",
            expected=" and ".join(map(repr, requires)) or "nothing",
            fix="install the version that wrote it, or a later one",
        )
    return data


def require(condition: bool, what: str, got: object, expected: str) -> None:
    """Raises InputError unless `condition` holds; the message shows `repr(got)`."""
    if not condition:
        raise InputError(what, got=repr(got), expected=expected)


def positive(number: float | None, optional: bool) -> bool:
    """Returns whether a number is above 0, or is None and optional."""
    return optional if number is None else number > 0


def known_fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of `data` that are fields of the dataclass `kind`; a later version may have added more."""
    names = {field.name for field in dataclass_fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def integer(value: object, what: str) -> int:
    """Returns `value` if it is an integer, else raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(what, got=repr(value), expected="an integer")
    return value


def is_number(value: object) -> bool:
    """Returns whether `value` is an int or a float; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: object, what: str) -> float:
    """Returns `value` if it is a number, NaN for None, else raises InputError.

    JSON has no NaN: it is written as null.
    """
    found = optional_number(value, what)
    return math.nan if found is None else found


def optional_number(value: object, what: str) -> float | None:
    """Returns `value` if it is a number or None, else raises InputError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(what, got=repr(value), expected="a number or null")
    return value


def strings(values: object, what: str) -> tuple[str, ...]:
    """Returns `values` as a tuple if it is a list of strings, else raises InputError."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise InputError(what, got=repr(values), expected="a list of strings")
    return tuple(values)
