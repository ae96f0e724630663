"""What torch says about itself while it exports goes to the debug log: it does not help who runs an export."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


class _ToDebugLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _log.debug("%s: %s", record.name, record.getMessage())


@contextmanager
def to_debug_log() -> Iterator[None]:
    """While the context is open, warnings and what torch logs go to the debug log instead of stderr."""
    handler = _ToDebugLog()
    before = {logger: logger.handlers for logger in _loggers_of_torch() if logger.handlers}
    for logger in before:
        logger.handlers = [handler]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for logger, handlers in before.items():
                logger.handlers = handlers
            for warning in caught:
                _log.debug("%s: %s", warning.category.__name__, warning.message)


def _loggers_of_torch() -> list[logging.Logger]:
    # torch gives handlers to many of its loggers, not to the one above them alone.
    known = logging.Logger.manager.loggerDict.items()
    return [
        logger
        for name, logger in known
        if isinstance(logger, logging.Logger) and (name == "torch" or name.startswith("torch."))
    ]
