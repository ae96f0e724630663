"""Progress on stderr: on a terminal a line that moves, in a log a line now and then; a line stays of each stage."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from fcn_deploy.cli.console import say
from fcn_deploy.text import printable

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_AT_ONCE = 0.5  # seconds
_FIRST, _EVERY = 2.0, 5.0  # seconds before the first line of a log about what runs, and between two of them


@dataclass(eq=False)
class Stage:
    """A stage of a command while it runs.

    Attributes:
        text: What is done.
        total: Number of items, or 1.0 if the share that is done is reported; None if nothing is known.
        note: Returns what else there is to say of items, such as their rate; None if they are not counted.
        timed: Whether times are measured, so that nothing may be drawn by a thread.
        done: Of `total`.
        begin: When it began, in seconds of `time.monotonic`.
    """

    text: str
    total: float | None = None
    note: Callable[[], str] | None = None
    timed: bool = False
    done: float = 0
    begin: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.begin

    def running(self) -> str:
        """Returns how far it is, how long it has run, and how long it will run if that can be said."""
        elapsed = self.elapsed
        if self.total is None and self.note is None:
            return f"running for {duration(elapsed)}"
        share = self.done / self.total if self.total else 0.0
        rest = f", about {duration(elapsed * (1 - share) / share)} left" if 0 < share < 1 else ""
        return f"{self._done()}, {duration(elapsed)}{rest}"

    def ended(self, stopped: bool) -> str:
        """Returns the line that stays: what was done, and how long it took."""
        counted = isinstance(self.total, int) or self.note is not None
        parts = [self._done()] if counted or (stopped and self.total is not None) else []
        return f"{self.text}: {'stopped after ' if stopped else ''}{', '.join([*parts, duration(self.elapsed)])}"

    def _done(self) -> str:
        if self.note is not None:
            of = "" if self.total is None else f" of {self.total}"
            return ", ".join(filter(None, (f"{self.done}{of}", self.note())))
        return f"{self.done} of {self.total}" if isinstance(self.total, int) else f"{self.done:.0%}"


def duration(seconds: float) -> str:
    """Returns a duration as people read it: `4.2 s`, `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    return f"{minutes} min {whole:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class _Log:
    """Writes a line about the innermost stage every few seconds, from a thread unless times are measured."""

    def __init__(self) -> None:
        self._stages: list[Stage] = []
        self._lock = threading.Lock()
        self._due = time.monotonic() + _FIRST
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def begin(self, stage: Stage) -> None:
        with self._lock:
            self._stages.append(stage)
        if self._thread is None and not stage.timed:
            self._over.clear()
            self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._thread.start()

    def end(self, stage: Stage) -> None:
        with self._lock:
            self._stages.remove(stage)
        if not self._stages and self._thread is not None:
            self._over.set()
            self._thread.join()
            self._thread = None

    def wrote(self) -> None:
        """A line was written by another: the next can wait."""
        self._due = max(self._due, time.monotonic() + _EVERY)

    def changed(self, stage: Stage) -> None:
        if stage.timed:
            self._write()

    def _watch(self) -> None:
        while not self._over.wait(max(self._due - time.monotonic(), 0.1)):
            if not any(stage.timed for stage in self._stages):
                self._write()

    def _write(self) -> None:
        with self._lock:
            if self._stages and time.monotonic() >= self._due:
                self._due = time.monotonic() + _EVERY
                stage = self._stages[-1]
                say(f"{stage.text}: {stage.running()}", err=True)


class TerminalProgress:
    """Stages as lines on stderr; on a terminal what runs is shown below them, and goes when the stage has ended.

    Used in a `with`: whatever is left of what runs goes before an error is reported.
    """

    def __init__(self) -> None:
        self._stages: list[Stage] = []
        self._shown = _screen() or _Log()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A loop over `track` that an error has left is not over for `track`, which knows of the items only.
        for stage in reversed(self._stages[:]):
            self._end(stage, stopped=kind is not None)

    def stage(self, text: str) -> None:
        """Prints a line, with flags where the library names parameters."""
        say(_with_flags(text), err=True)
        self._shown.wrote()

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Shows that a stage of unknown length runs, and for how long."""
        with self._running(Stage(_with_flags(text))):
            yield

    @contextmanager
    def measuring(self, text: str) -> Iterator[Callable[[float], None]]:
        """Shows a stage that is drawn only when the share that is done is reported."""
        with self._running(Stage(_with_flags(text), total=1.0, timed=True)) as show:
            yield show

    @contextmanager
    def advancing(self, text: str) -> Iterator[Callable[[float], None]]:
        """Shows a stage that reports the share that is done."""
        with self._running(Stage(_with_flags(text), total=1.0)) as show:
            yield show

    @contextmanager
    def counting(self, text: str, total: int | None, note: Callable[[], str]) -> Iterator[Callable[[float], None]]:
        """Shows how many items are done, and what `note` says of them."""
        stage = Stage(_with_flags(text), total=total, note=note)
        with self._running(stage) as show:
            yield show
            # A video may state more frames than it has.
            stage.total = None if total is None else stage.done

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yields `items`, and shows how many are done."""
        stage = Stage(_with_flags(what), total=total)
        with self._running(stage) as show:
            for done, item in enumerate(items, start=1):
                yield item
                show(done)

    @contextmanager
    def _running(self, stage: Stage) -> Iterator[Callable[[float], None]]:
        self._stages.append(stage)
        self._shown.begin(stage)

        def show(done: float) -> None:
            stage.done = done
            self._shown.changed(stage)

        try:
            yield show
        except BaseException:  # also when a loop over `track` is left
            self._end(stage, stopped=True)
            raise
        self._end(stage, stopped=False)

    def _end(self, stage: Stage, *, stopped: bool) -> None:
        with suppress(ValueError):  # it has ended
            self._stages.remove(stage)
            self._shown.end(stage)
            # What was stopped at once has done nothing: the error says all there is to say.
            if not stopped or stage.done or stage.elapsed >= _AT_ONCE:
                say(stage.ended(stopped), err=True)
            self._shown.wrote()


def _screen() -> Screen | None:
    """Returns what draws on stderr if that is a terminal on which something can move."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console

    from fcn_deploy.cli.screen import Screen

    console = Console(stderr=True)
    return Screen(console) if console.is_interactive else None


def _with_flags(text: str) -> str:
    from fcn_deploy.cli.app import with_flags

    return printable(with_flags(text))


if TYPE_CHECKING:
    from fcn_deploy.cli.screen import Screen
