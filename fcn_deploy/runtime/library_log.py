"""What a TensorRT library has to say: it answers a failed call with None or False, and logs the reason."""

from __future__ import annotations

import logging
from collections import deque
from functools import cache
from types import ModuleType
from typing import Any

_log = logging.getLogger(__name__)

_KEPT = 20


class LibraryLog:
    """The logger of a library, and the last errors it was given.

    Attributes:
        logger: What `Runtime` and `Builder` of the library take.
    """

    def __init__(self, module: ModuleType) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self.logger = _make_logger(module, self._errors)

    def take_errors(self) -> str:
        """Returns the errors since the last call, the first of them first, and forgets them."""
        errors = []
        while self._errors:
            errors.append(self._errors.popleft())
        return "; ".join(errors) or "no reason given"


@cache
def library_log(module: ModuleType) -> LibraryLog:
    """Returns the one log of a library in this process: these libraries hold on to the first logger they are given."""
    return LibraryLog(module)


def _make_logger(module: Any, errors: deque[str]) -> Any:
    severities = module.ILogger.Severity

    class Logger(module.ILogger):
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            """Keeps errors for the exception that follows; the library calls it from threads of its own as well."""
            if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                errors.append(message.strip())
            elif severity == severities.WARNING:
                _log.warning("%s: %s", module.__name__, message.strip())

    return Logger()
