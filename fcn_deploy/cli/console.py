"""What a command says, and where: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from fcn_deploy.text import printable


def say(text: object, *, err: bool = False) -> None:
    """Prints a line; what a terminal would obey, such as in names of files, is shown as an escape."""
    put(printable(text), err=err)


def put(text: str, *, err: bool = False) -> None:
    """Prints text as it is."""
    # Named, because click would choose the real stream, and not the one that keeps lines apart from a drawn bar.
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        click.echo(text, file=stream)


def print_json(data: Any) -> None:
    """Prints one JSON document on stdout."""
    from fcn_deploy.files import dumps_json

    put(dumps_json(data, indent=2))


def print_table(table: Any) -> None:
    """Prints a rich table on stdout."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns and would cut what a log or a pipe can hold; on a narrow terminal a
    # row that wraps is better than one that is cut.
    console = Console()
    console.width = max(console.width if console.is_terminal else 0, 120)
    console.print(table, soft_wrap=not console.is_terminal)


class _Sink(io.FileIO):
    """A file descriptor whose reader may go: what it does not take is dropped, and an error of its own is kept.

    So the exit code is that of the command, whatever reads its output, and no buffer fails when Python ends.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            pass
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes


class Streams:
    """stdout and stderr of the process, which outlive a closed pipe and take every character.

    Attributes:
        failure: Why not all of stdout could be written, such as a full disk; None if it was, or if its reader has gone.
    """

    def __init__(self) -> None:
        self._sinks = {name: sink for name in ("stdout", "stderr") if (sink := _opened(name)) is not None}

    @property
    def failure(self) -> OSError | None:
        """See above."""
        sink = self._sinks.get("stdout")
        if sink is None:
            return None
        sys.stdout.flush()
        return sink.failure


def _opened(name: str) -> _Sink | None:
    stream = getattr(sys, name)
    if not isinstance(stream, io.TextIOWrapper):  # closed, or taken over by somebody else
        return None
    stream.flush()
    sink = _Sink(stream.fileno(), "w", closefd=False)
    lines = stream.line_buffering or stream.write_through
    text = io.TextIOWrapper(
        io.BufferedWriter(sink), encoding=stream.encoding, errors="backslashreplace", line_buffering=lines
    )
    setattr(sys, name, text)
    return sink
