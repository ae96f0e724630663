"""Keeps the kernels that a library has compiled for a GPU in a file next to the engine, for the next process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from fcn_deploy.errors import InputError
from fcn_deploy.files import read_bytes, write_bytes
from fcn_deploy.runtime.tensorrt.log import LibraryLog

_log = logging.getLogger(__name__)

# Seconds after the first run of a shape at which the cache is saved: the library goes on compiling in the background.
_SAVED_AFTER = (0.0, 5.0, 60.0)
# Seconds from one save to the next, at least, so that a stream of new shapes does not write one file after another.
_APART = 5.0


def kernel_cache_path(engine: Path) -> Path:
    """Returns the path of the cache of `engine`: the same with `.cache` added."""
    return engine.with_name(engine.name + ".cache")


class KernelCache:
    """The file of a runtime cache.

    All of its content can be compiled again. A cache that cannot be used or written therefore costs time and is a
    warning, never an error. The library refuses a cache of another GPU or driver, for example.

    Args:
        engine: The plan that the cache belongs to.
        cache: The library's IRuntimeCache, empty; it is filled from the file, if there is one.
        log: The library's log, which says why it refuses a file.
        clock: Returns the time in seconds.
    """

    def __init__(self, engine: Path, cache: Any, log: LibraryLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = kernel_cache_path(engine)
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()
        self._shapes: set[Hashable] = set()
        self._due: list[float] = []
        self._saved = -_APART
        self._written = b""
        if not self._path.is_file():
            return
        try:
            content = read_bytes(self._path)
        except InputError as error:
            _log.warning("%s; kernels are compiled again", error)
            return
        if cache.deserialize(content):
            self._written = content
        else:
            _log.warning(
                "%s belongs to another GPU, driver or library, or is corrupt (%s); kernels are compiled again",
                self._path,
                log.take_errors(),
            )

    def after_run(self, shapes: Hashable) -> None:
        """Saves what a run with new shapes has had compiled, now and with later runs: not every process is closed.

        Args:
            shapes: What the engine has just been run with.
        """
        now = self._clock()
        with self._lock:
            if shapes not in self._shapes:
                self._shapes.add(shapes)
                self._due = [max(now + seconds, self._saved + _APART) for seconds in _SAVED_AFTER]
            if not self._due or now < self._due[0]:
                return
            self._due = [when for when in self._due if when > now]
            self._save()

    def save(self) -> None:
        """Writes the file atomically, if anything was compiled since it was read or written."""
        with self._lock:
            self._save()

    def _save(self) -> None:
        self._saved = self._clock()
        compiled = self._cache.serialize()
        if compiled is None:
            _log.warning("the library did not return its compiled kernels; %s stays as it is", self._path)
            return
        content = bytes(compiled)
        if content == self._written:
            return
        try:
            write_bytes(self._path, content)
        except InputError as error:
            _log.warning("%s; the next process compiles the kernels again", error)
        self._written = content
