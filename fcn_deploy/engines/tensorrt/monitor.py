"""A running TensorRT build: how far it is, and how to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildPhases:
    """The phases that a builder reports, nested, and the share of the whole build that is done.

    A builder calls it from several threads. The share never falls, even if an unannounced phase begins.

    Args:
        show: Called with the share, 0..1, whenever it has grown.
    """

    def __init__(self, show: Callable[[float], None]) -> None:
        self._show = show
        self._phases: dict[str, _Phase] = {}
        self._shown = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Makes the builder stop at its next step."""
        self._stopped.set()

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """Records that a phase of `steps` steps has begun, within its parent's next step."""
        with self._lock:
            self._phases[phase] = _Phase(parent, steps)

    def step(self, phase: str, step: int) -> bool:
        """Records that a step of a phase, counted from 0, is done; returns whether to go on."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase].done = step + 1
            self._update()
        return not self._stopped.is_set()

    def finish(self, phase: str) -> None:
        """Records that a phase has ended."""
        with self._lock:
            self._phases.pop(phase, None)

    def _update(self) -> None:
        shares = [self._share(name) for name, phase in self._phases.items() if phase.parent not in self._phases]
        share = max(shares, default=0.0)
        if share > self._shown:
            self._shown = share
            self._show(share)

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        within = max((self._share(child) for child, each in self._phases.items() if each.parent == name), default=0.0)
        return min((phase.done + within) / max(phase.steps, 1), 1.0)


def make_monitor(module: ModuleType, phases: BuildPhases) -> Any:
    """Returns a library's IProgressMonitor that reports to `phases`; the caller keeps it until the build has ended."""
    base: Any = module.IProgressMonitor

    class Monitor(base):
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


def run_interruptibly(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Runs `work` in a thread of its own, so that Ctrl-C works while a library's call has not returned.

    Args:
        work: What to do.
        stop: Called on Ctrl-C; makes `work` return soon. Its end is waited for.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    future: Future[T] = Future()
    cancelled = threading.Event()

    def run() -> None:
        try:
            if not cancelled.is_set():
                future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # No executor: if it is interrupted while it starts its thread, it loses the thread and does not wait for it.
    thread = threading.Thread(target=run, name="build")
    try:
        thread.start()
        return future.result()
    except KeyboardInterrupt:
        cancelled.set()
        stop()
        while thread.is_alive():
            thread.join()
        raise
