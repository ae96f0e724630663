"""Lends things that only one call may use at a time to several threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Generic, TypeVar

from fcn_deploy.errors import InputError
from fcn_deploy.runtime.backend import backend_closed
from fcn_deploy.runtime.tensorrt.cuda import OutOfMemoryError

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Pool(Generic[T]):
    """Lends things, makes another when all are lent, and lets callers wait when the limit is reached.

    If the GPU has no room for another one, or for what one needs, idle ones are freed and callers wait for those that
    are lent: the limit is lower from then on.

    Args:
        make: Makes a thing; never called by two threads at once.
        free: Frees a thing.
        limit: How many there may be, at least 1.
    """

    def __init__(self, make: Callable[[], T], free: Callable[[T], None], limit: int) -> None:
        self._make = make
        self._free = free
        self._limit = limit
        self._idle: list[T] = []
        self._count = 0
        self._freed = 0
        self._closed = False
        self._changed = threading.Condition()
        self._making = threading.Lock()

    def use(self, work: Callable[[T], R]) -> R:
        """Does some work with a thing, and returns its result; the one used last goes first: its memory is warm.

        After an error the thing is freed, because its state is unknown. An InputError is raised before anything is
        changed, and the thing stays.

        Args:
            work: Called again from its start if the GPU was full and another thing has been freed since.

        Raises:
            ClosedError: The pool has been closed.
            OutOfMemoryError: The GPU has no room, even with no other thing in it.
            Exception: What `work` raises.
        """
        while True:
            thing, freed = self._take()
            try:
                result = work(thing)
            except InputError:
                self._return(thing)
                raise
            except OutOfMemoryError as error:
                self._drop(thing)
                if self._make_room(error, freed + 1):
                    continue
                raise
            except BaseException:
                self._drop(thing)
                raise
            self._return(thing)
            return result

    def close(self) -> None:
        """Waits until nothing is lent and frees everything; every later call raises ClosedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._count == len(self._idle))
            idle, self._idle, self._count = self._idle, [], 0
        self._free_all(idle)

    def _make_room(self, error: OutOfMemoryError, freed: int) -> bool:
        """Frees what is idle, and lowers the limit to what is lent.

        Args:
            error: What asked for room.
            freed: How many things had been freed when it began, and by it since.

        Returns:
            Whether another try makes sense: there is another thing, or one has been freed meanwhile.
        """
        with self._changed:
            if not self._count and self._freed == freed:
                return False
            idle, self._idle = self._idle, []
            limit = max(1, self._count - len(idle))
            if limit < self._limit:
                self._limit = limit
                _log.warning("%s: from here on, %d calls run at the same time, and others wait", error.what, limit)
        for thing in idle:
            self._drop(thing)
        return True

    def _free_all(self, things: list[T]) -> None:
        with ExitStack() as every:  # if one of them raises, the others are freed all the same
            for thing in things:
                every.callback(self._free, thing)

    def _take(self) -> tuple[T, int]:
        """Returns a thing, and how many had been freed before it was taken."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._idle or self._count < self._limit)
                if self._closed:
                    raise backend_closed()
                freed = self._freed
                if self._idle:
                    return self._idle.pop(), freed
                self._count += 1
            try:
                with self._making:
                    return self._make(), freed
            except OutOfMemoryError as error:
                self._forget(1)
                if not self._make_room(error, freed + 1):
                    raise
            except BaseException:
                self._forget(1)
                raise

    def _return(self, thing: T) -> None:
        with self._changed:
            self._idle.append(thing)
            self._changed.notify_all()

    def _drop(self, thing: T) -> None:
        try:
            self._free(thing)
        except Exception as error:
            # What broke it may also keep it from being freed; the first error, if there is one, is the one to raise.
            _log.warning("not everything could be freed: %s", error)
        finally:
            self._forget(1)

    def _forget(self, freed: int) -> None:
        """Counts things that are gone, once their memory is."""
        with self._changed:
            self._count -= freed
            self._freed += freed
            self._changed.notify_all()
