"""Lends things that only one call may use at a time to several threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.runtime.backend import backend_closed

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends things, makes another when all are lent, and lets callers wait when the limit is reached.

    Args:
        make: Makes a thing; never called by two threads at once.
        free: Frees a thing.
        limit: How many there may be, at least 1.

    Raises:
        UsageError: `limit` is less than 1.
    """

    def __init__(self, make: Callable[[], T], free: Callable[[T], None], limit: int) -> None:
        if limit < 1:
            raise UsageError("bad number of execution contexts", got=limit, expected="1 or more")
        self._make = make
        self._free = free
        self._limit = limit
        self._idle: list[T] = []
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()
        self._making = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[T]:
        """Lends a thing for the length of a `with`; the one used last goes first, because its memory is warm.

        After an error it is freed, because its state is unknown. An InputError is raised before anything is changed,
        and the thing stays.

        Raises:
            ClosedError: The pool has been closed.
        """
        thing = self._take()
        try:
            yield thing
        except InputError:
            self._return(thing)
            raise
        except BaseException:
            self._drop(thing)
            raise
        self._return(thing)

    def close(self) -> None:
        """Waits until nothing is lent and frees everything; every later call raises ClosedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._count == len(self._idle))
            idle, self._idle, self._count = self._idle, [], 0
        with ExitStack() as every:  # if one of them raises, the others are freed all the same
            for thing in idle:
                every.callback(self._free, thing)

    def _take(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._count < self._limit)
            if self._closed:
                raise backend_closed()
            if self._idle:
                return self._idle.pop()
            self._count += 1
        try:
            with self._making:
                return self._make()
        except BaseException:
            self._forget()
            raise

    def _return(self, thing: T) -> None:
        with self._changed:
            self._idle.append(thing)
            self._changed.notify_all()

    def _drop(self, thing: T) -> None:
        try:
            self._free(thing)
        except Exception as error:
            # What broke it may also keep it from being freed; the first error is the one to raise.
            _log.warning("after the error that follows, not everything could be freed: %s", error)
        finally:
            self._forget()

    def _forget(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
