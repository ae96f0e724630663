"""Lends the cores of this machine to inferences, so that several sessions do not fight for them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Cores:
    """Lends cores in the order they are asked for.

    Two inferences of two threads each take longer on two cores at the same time than one after the other: a thread that
    has done its part of a layer waits for another thread that the system is not running.

    Args:
        count: The number of cores.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.reset()

    def reset(self) -> None:
        """Makes all cores free and the queue empty, as they are in a process that was just forked."""
        self._free = self.count
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def lend(self, wanted: int) -> Iterator[None]:
        """Lends cores for the length of a `with`, as soon as enough are free and all earlier calls are served.

        Args:
            wanted: How many; all of them if there are fewer. A call that wants 0 does not wait.
        """
        if wanted == 0:
            yield
            return
        wanted = min(wanted, self.count)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self._free >= wanted)
                self._free -= wanted
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def _available() -> int:
    """Counts the cores that this process may use: a container or taskset may leave fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


CORES = Cores(_available())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CORES.reset)  # the threads that borrowed cores do not exist in the child
