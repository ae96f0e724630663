"""What runs, drawn on a terminal with rich."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from fcn_deploy.cli.progress import Stage

_REDRAW = 0.1  # seconds between two drawings of what is measured


class Screen:
    """Draws the stages that run, each on a line, below what is printed meanwhile.

    A thread draws them, unless one of them measures times.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[Stage, TaskID] = {}
        self._live: Progress | None = None
        self._drawn = -_REDRAW

    def begin(self, stage: Stage) -> None:
        """Adds a stage."""
        if stage.timed or self._live is None:
            self._restart([*self._tasks, stage])
        else:
            self._tasks[stage] = _add(self._live, stage)

    def end(self, stage: Stage) -> None:
        """Takes a stage away."""
        task = self._tasks.pop(stage)
        if stage.timed or not self._tasks:
            self._restart(list(self._tasks))
        elif self._live is not None:
            self._live.remove_task(task)

    def wrote(self) -> None:
        """A line was written by another: rich has put it above what is drawn."""

    def changed(self, stage: Stage) -> None:
        """Draws how far a stage is."""
        if self._live is None:
            return
        self._live.update(self._tasks[stage], completed=stage.done)
        if stage.timed and time.monotonic() - self._drawn >= _REDRAW:  # rounds can take less time than a drawing
            self._live.refresh()
            self._drawn = time.monotonic()

    def _restart(self, stages: list[Stage]) -> None:
        if self._live is not None:
            self._live.stop()
        self._live, self._tasks = None, {}
        if stages:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), _Bar(), _State())
            threaded = not any(stage.timed for stage in stages)
            # stdout is left alone: it may be a pipe, and nothing is printed there before the stages have ended.
            self._live = Progress(
                *columns, console=self._console, transient=True, auto_refresh=threaded, redirect_stdout=False
            )
            self._tasks = {stage: _add(self._live, stage) for stage in stages}
            self._live.start()


def _add(live: Progress, stage: Stage) -> TaskID:
    return live.add_task(stage.text, total=stage.total, completed=stage.done, stage=stage)  # type: ignore[arg-type]


class _Bar(BarColumn):
    """A bar, for stages whose length is known."""

    def render(self, task: Task) -> RenderableType:  # type: ignore[override]
        return Text() if task.total is None else super().render(task)


class _State(ProgressColumn):
    """What a log would say too."""

    def render(self, task: Task) -> Text:
        stage: Stage = task.fields["stage"]
        return Text(stage.running())
