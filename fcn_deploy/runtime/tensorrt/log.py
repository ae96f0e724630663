"""The log of a TensorRT library: a failed call returns None or False, and only the log has the reason."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        # Each with the thread that it was logged in.
        self._errors: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._warned: set[str] = set()
        self._file: TextIO | None = None
        self._listen: Callable[[str], None] | None = None
        self._one = threading.Lock()
        self.logger = _make_logger(module, self._receive)

    def take_errors(self) -> str:
        """Returns the errors since the last call, oldest first, and forgets them."""
        return "; ".join(self.errors()) or "no reason given"

    def take_own_errors(self) -> str:
        """Returns the errors that were logged in the calling thread, and forgets them; if there are none, all others.

        When calls fail in several threads at once, each gets its own reason.
        """
        here = threading.get_ident()
        own = [entry for entry in self._errors.copy() if entry[0] == here]
        if not own:
            return self.take_errors()
        for entry in own:
            with suppress(ValueError):  # another thread has taken all meanwhile
                self._errors.remove(entry)
        return "; ".join(message for _, message in own)

    def errors(self) -> list[str]:
        """Returns the errors since the last call as a list, oldest first, and forgets them."""
        errors = []
        with suppress(IndexError):
            while True:
                errors.append(self._errors.popleft()[1])
        return errors

    @contextmanager
    def recording(self, path: Path | None, listen: Callable[[str], None] | None = None) -> Iterator[LibraryLog]:
        """Forgets earlier messages, and writes every new message to a file until the context ends.

        Messages do not say whose they are. So a second thread waits here until the first has ended.

        A repeated warning is logged once; the file has it each time. Unlike an artifact, the file is written as it
        grows: it is what remains of a build that hangs or is killed.

        Args:
            path: The file; if None, no file is written.
            listen: Called with every message; also from threads of the library.

        Raises:
            InputError: The file cannot be written.
        """
        with self._one, _opened(path) as file:
            self._errors.clear()
            self._warned.clear()
            self._file, self._listen = file, listen
            try:
                yield self
            finally:
                self._file = self._listen = None

    def _receive(self, severity: str, message: str) -> None:
        """Keeps errors for the exception that follows; the library also calls this from threads of its own."""
        message = message.strip()
        self._record(f"{severity}: {message}\n")
        listen = self._listen
        if listen is not None:
            listen(message)
        if message in _HARMLESS:
            return
        if severity in ("INTERNAL_ERROR", "ERROR"):
            self._errors.append((threading.get_ident(), message))
        elif severity == "WARNING" and message not in self._warned:
            self._warned.add(message)  # some come for every layer, in the same words
            _log.warning("%s: %s", self._name, message)

    def _record(self, line: str) -> None:
        """Writes a line to the file, if there is one; an exception must not pass through the library that calls."""
        file = self._file
        try:
            if file is not None:
                file.write(line)
        except (OSError, ValueError) as error:  # the disk is full, or the recording has just ended in another thread
            if self._file is file:
                self._file = None
                _log.warning("the log of %s ends here, because it cannot be written: %s", self._name, error)


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        raise InputError(f"cannot write {path}", got=error.strerror or error) from error
    try:
        yield file
    finally:
        with suppress(OSError):  # what is still in its buffer: that the disk is full has been said
            file.close()


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
