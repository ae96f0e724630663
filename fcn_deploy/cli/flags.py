"""Turns the parameters that an error names, such as `io="tensor"`, into the flags of the command line: --io tensor."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

import click

# A parameter of a public function in backticks, as errors and log lines write it, with its value or without.
_PARAMETER = re.compile(r"`(\w+)(?:=([^`]+))?`")


def flags_of(commands: Iterable[click.Command]) -> dict[str, str]:
    """Returns the flag of each parameter that commands have as an option: `calib_data` is `--calib-data`.

    A flag that turns something off belongs to `NAME=False`, one that stands for a value to `NAME=VALUE`.
    """
    flags: dict[str, str] = {}
    for command in commands:
        for parameter in command.params:
            if not isinstance(parameter, click.Option):
                continue
            flag = max(parameter.opts, key=len)
            if parameter.is_flag and parameter.flag_value is False:
                flags[f"{parameter.name}=False"] = flag
            elif parameter.is_flag and isinstance(parameter.flag_value, str):
                flags[f"{parameter.name}={parameter.flag_value}"] = flag
            else:
                flags.setdefault(str(parameter.name), flag)
    return flags


def render(text: str, flags: Mapping[str, str]) -> str:
    """Returns a message with its parameters as flags; a name that is not an option stays as it is."""

    def flag(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if value is None:
            return flags.get(name, match[0])
        value = value.strip("\"'")
        if f"{name}={value}" in flags:
            return flags[f"{name}={value}"]
        if name not in flags:
            return match[0]
        if any(letter in value for letter in "*?["):
            value = shlex.quote(value)  # or the shell would look for files
        return flags[name] if value == "True" else f"{flags[name]} {value}"

    return _PARAMETER.sub(flag, text)
