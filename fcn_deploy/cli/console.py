"""What a command says, and where: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

T = TypeVar("T")

_REDRAW = 0.1  # seconds between two drawings of a bar


class TerminalProgress:
    """Steps as lines on stderr; on a terminal also a spinner or a bar, which goes when the step has ended."""

    def stage(self, text: str) -> None:
        """Prints a line, with flags where the library names parameters."""
        from fcn_deploy.cli.app import with_flags

        click.echo(with_flags(text), err=True)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Prints a line, with a spinner and the time below it."""
        self.stage(text)
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
            progress.add_task(text, total=None)
            yield

    @contextmanager
    def measuring(self, text: str) -> Iterator[Callable[[float], None]]:
        """Prints a line, with a bar below it that is drawn only when the share that is done is reported."""
        self.stage(text)
        if not sys.stderr.isatty():
            yield lambda share: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn

        columns, console = (BarColumn(), TaskProgressColumn()), Console(stderr=True)
        with Progress(*columns, console=console, transient=True, auto_refresh=False, redirect_stdout=False) as progress:
            task = progress.add_task(text, total=1.0)
            drawn = -_REDRAW

            def show(share: float) -> None:
                nonlocal drawn
                if time.monotonic() - drawn >= _REDRAW:  # rounds can take less time than a drawing
                    progress.update(task, completed=share, refresh=True)
                    drawn = time.monotonic()

            yield show

    @contextmanager
    def advancing(self, text: str) -> Iterator[Callable[[float], None]]:
        """Prints a line, with a bar and the time below it."""
        self.stage(text)
        if not sys.stderr.isatty():
            yield lambda share: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
            task = progress.add_task(text, total=1.0)
            yield lambda share: progress.update(task, completed=share)

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yields `items`, with a progress bar on a terminal and a line elsewhere."""
        if not sys.stderr.isatty():
            self.stage(what)
            yield from items
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # The rate is computed from the elapsed time, because rich has no speed before the second item.
        rate = TextColumn("{task.fields[rate]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=total, rate="")
            for done, item in enumerate(items, start=1):
                yield item
                elapsed = progress.tasks[task].elapsed
                rate_text = f"{done / elapsed:.1f}/s" if elapsed else ""
                progress.update(task, completed=done, rate=rate_text)


def print_json(data: Any) -> None:
    """Prints one JSON document on stdout."""
    from fcn_deploy.files import dumps_json

    click.echo(dumps_json(data, indent=2))


def print_table(table: Any) -> None:
    """Prints a rich table on stdout."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns and would cut what a log or a pipe can hold; on a narrow terminal a
    # row that wraps is better than one that is cut.
    console = Console()
    console.width = max(console.width if console.is_terminal else 0, 120)
    console.print(table, soft_wrap=not console.is_terminal)
