"""The log of a TensorRT library: a failed call returns None or False, and only the log has the reason."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from fcn_deploy.errors import InputError

_log = logging.getLogger(__name__)

_KEPT = 20

# TensorRT-RTX logs these whenever compute capabilities are given; nothing is wrong, and nothing can be done.
_HARMLESS = (
    "Thread context has not been set! Using global log stream.",
    "getHardwareCompatibilityLevel() is unsupported in TensorRT-RTX.",
)


class LibraryLog:
    """The logger of a library, its last errors, and optionally a file that gets every message.

    Args:
        module: The library.

    Attributes:
        logger: The object to pass to the library's `Runtime` and `Builder`.
    """

    def __init__(self, module: ModuleType) -> None:
        self._name = module.__name__
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self._warned: set[str] = set()
        self._file: TextIO | None = None
        self._listen: Callable[[str], None] | None = None
        self.logger = _make_logger(module, self._receive)

    def take_errors(self) -> str:
        """Returns the errors since the last call, oldest first, and forgets them."""
        return "; ".join(self.errors()) or "no reason given"

    def errors(self) -> list[str]:
        """Returns the errors since the last call as a list, oldest first, and forgets them."""
        errors = []
        while self._errors:
            errors.append(self._errors.popleft())
        return errors

    @contextmanager
    def recording(self, path: Path | None, listen: Callable[[str], None] | None = None) -> Iterator[LibraryLog]:
        """Forgets earlier messages, and writes every new message to a file until the context ends.

        A repeated warning is logged once; the file has it each time. Unlike an artifact, the file is written as it
        grows: it is what remains of a build that hangs or is killed.

        Args:
            path: The file; if None, no file is written.
            listen: Called with every message; also from threads of the library.

        Raises:
            InputError: The file cannot be written.
        """
        self._errors.clear()
        self._warned.clear()
        with _opened(path) as file:
            self._file, self._listen = file, listen
            try:
                yield self
            finally:
                self._file = self._listen = None

    def _receive(self, severity: str, message: str) -> None:
        """Keeps errors for the exception that follows; the library also calls this from threads of its own."""
        message = message.strip()
        file = self._file
        if file is not None:
            file.write(f"{severity}: {message}\n")
        if self._listen is not None:
            self._listen(message)
        if message in _HARMLESS:
            return
        if severity in ("INTERNAL_ERROR", "ERROR"):
            self._errors.append(message)
        elif severity == "WARNING" and message not in self._warned:
            self._warned.add(message)  # some come for every layer, in the same words
            _log.warning("%s: %s", self._name, message)


def _opened(path: Path | None) -> AbstractContextManager[TextIO | None]:
    if path is None:
        return nullcontext()
    try:
        return path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        raise InputError(f"cannot write {path}", got=error.strerror or error) from error


@cache
def library_log(module: ModuleType) -> LibraryLog:
    """Returns the one log of a library in this process: these libraries keep the first logger they are given."""
    return LibraryLog(module)


def _make_logger(module: Any, heard: Any) -> Any:
    class Logger(module.ILogger):
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            heard(severity.name, message)

    return Logger()
