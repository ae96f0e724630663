"""What a library has compiled for the GPU at hand, kept beside the engine so that the next process need not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fcn_deploy.errors import InputError
from fcn_deploy.files import read_bytes, write_bytes
from fcn_deploy.runtime.tensorrt.log import LibraryLog

_log = logging.getLogger(__name__)


def kernel_cache_path(engine: Path) -> Path:
    """Returns where the cache of `engine` lies: beside it, `.cache` added to its name."""
    return engine.with_name(engine.name + ".cache")


class KernelCache:
    """The file of a runtime cache.

    It holds nothing that cannot be compiled again, so a cache that cannot be used or written is a warning and costs
    time, never an error: another GPU or driver is reason enough for the library not to take it.

    Args:
        engine: The plan whose cache it is.
        cache: The library's IRuntimeCache, empty; filled here from the file, if there is one.
        log: Where the library says why it does not take the file.
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
                "%s is of another GPU, driver or library, or corrupt (%s); kernels are compiled again",
                self._path,
                log.take_errors(),
            )

    def save(self) -> None:
        """Writes what has been compiled since, atomically."""
        compiled = self._cache.serialize()
        if compiled is None:
            _log.warning("the library did not give what it has compiled; %s stays as it is", self._path)
            return
        content = bytes(compiled)
        if content == self._written:
            return
        try:
            write_bytes(self._path, content)
        except InputError as error:
            _log.warning("%s; kernels will be compiled again the next time", error)
        self._written = content
