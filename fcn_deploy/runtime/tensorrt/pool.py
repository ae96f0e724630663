"""Things that only one call may use at a time, lent to as many threads as there are things."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

from fcn_deploy.errors import ClosedError, InputError, UsageError

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends things out, makes another when all are lent, and lets callers wait once there are enough.

    Args:
        make: Makes a thing; never called by two threads at once.
        free: Frees one.
        limit: How many there may be, at least 1.

    Raises:
        UsageError: The limit is none.
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
        """Lends a thing for the length of a `with`; the one used last, whose memory is warm, goes first.

        After an error it is freed, for nobody knows the state it is in; an InputError comes before anything is touched.

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
        """Waits for what is lent and frees everything; every later call raises ClosedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._count == len(self._idle))
            idle, self._idle, self._count = self._idle, [], 0
        with ExitStack() as every:  # whatever one of them raises, the others are freed
            for thing in idle:
                every.callback(self._free, thing)

    def _take(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._count < self._limit)
            if self._closed:
                raise ClosedError("this backend is closed", fix="open the engine again")
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
        except (
            Exception
        ) as error:  # what broke it may well keep it from being freed; the first error is the one to tell
            _log.warning("after the error that follows, not everything could be freed: %s", error)
        finally:
            self._forget()

    def _forget(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
