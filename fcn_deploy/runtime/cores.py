"""Lends the cores of this machine to inferences, so that several sessions do not fight for them."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def usable_cores(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Counts the cores that this process may use: a container or taskset may leave fewer than there are.

    Args:
        proc: Where Linux says which control group the process is in.
        root: Where Linux has the limits of control groups.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(proc, root)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota(proc: Path, root: Path) -> float | None:
    """Returns how many cores' time the control group of this process may take; None for any."""
    quotas = []
    for line in _lines(proc):
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root if not controllers else root / "cpu"  # without a name: version 2, which has one tree for all
        folder = top / name.strip("/")
        for each in (folder, *folder.parents):  # the limit of a group is also that of the groups in it
            quotas += _limits(each)
            if each == top:
                break
    return min(quotas, default=None)


def _limits(folder: Path) -> list[float]:
    numbers = _lines(folder / "cpu.max")[:1]
    first = numbers[0].split() if numbers else []
    if len(first) != 2:
        first = [*_lines(folder / "cpu.cfs_quota_us")[:1], *_lines(folder / "cpu.cfs_period_us")[:1]]
    try:
        quota, period = map(int, first)
    except ValueError:  # `max`, or no limits here
        return []
    return [quota / period] if quota > 0 and period > 0 else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


CORES = Cores(usable_cores())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CORES.reset)  # the threads that borrowed cores do not exist in the child
