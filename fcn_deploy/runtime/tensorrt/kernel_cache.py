"""Keeps the kernels that a library has compiled for a GPU in a file next to the engine, for the next process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fcn_deploy.errors import InputError
from fcn_deploy.files import read_bytes, write_bytes
from fcn_deploy.runtime.tensorrt.log import LibraryLog

_log = logging.getLogger(__name__)


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
    """

    def __init__(self, engine: Path, cache: Any, log: LibraryLog) -> None:
        self._path = kernel_cache_path(engine)
        self._cache = cache
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

    def save(self) -> None:
        """Writes the file atomically, if anything was compiled since it was read."""
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
