"""Every error this package raises on purpose.

A message says what went wrong, what was found, what was expected and how to fix it. Each class has the exit code of
a command that fails with it. Library code raises; only the command line prints and exits.
"""

from __future__ import annotations

from fcn_deploy.text import printable


class FcnDeployError(Exception):
    """Base class: an error whose cause is known and whose message tells the user what to do.

    The message is one line, in which control characters of names are shown as escapes.

    Args:
        what: What went wrong, naming the file, tensor or option.
        got: What was found.
        expected: What was expected instead.
        fix: What the user can do.
    """

    exit_code = 1

    def __init__(self, what: str, *, got: object = None, expected: object = None, fix: str | None = None) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.fix = fix
        super().__init__(self._message())

    def advise(self, text: str) -> None:
        """Adds to what the user can do."""
        self.fix = text if self.fix is None else f"{self.fix}; {text}"
        self.args = (self._message(),)

    def _message(self) -> str:
        parts = [self.what]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.fix is not None:
            parts.append(f"fix: {self.fix}")
        return printable("; ".join(parts))


class UsageError(FcnDeployError):
    """A bad option or argument, or options that do not go together."""

    exit_code = 2


class WrongIoError(UsageError, TypeError):
    """A call that this kind of engine cannot answer, such as `logits` of an engine that gives labels."""


class ClosedError(UsageError, RuntimeError):
    """A call on something that has been closed."""


class GateError(FcnDeployError):
    """A measured value failed its gate.

    Attributes:
        report: Everything that was measured, if that is more than the message says.
    """

    exit_code = 3
    report: object = None


class PrecisionError(FcnDeployError):
    """The engine does not run in the requested precision."""

    exit_code = 4


class ArtifactError(FcnDeployError):
    """An engine does not fit its sidecar, this runtime or this machine."""

    exit_code = 5


class InputError(FcnDeployError, ValueError):
    """Bad input data, a bad model, or a path that cannot be read or written."""

    exit_code = 6


class DependencyError(FcnDeployError):
    """A library, driver or device is missing; the message names what to install."""

    exit_code = 7
