"""The group of commands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import functools
import importlib
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click

from fcn_deploy._version import __version__
from fcn_deploy.cli.console import Streams, put, say
from fcn_deploy.cli.flags import flags_of, render
from fcn_deploy.dependencies import missing_package
from fcn_deploy.errors import FcnDeployError, InputError, UsageError
from fcn_deploy.text import printable

_NAME = "fcn-deploy"
# What a shell sets when it asks what may stand at the cursor; click's own name for it.
_COMPLETE = "_FCN_DEPLOY_COMPLETE"

# In the order of use. A command's module imports click alone; its body imports what it needs.
_COMMANDS = {
    "deploy": "deploy",
    "finish": "finish",
    "export": "export",
    "adopt": "adopt",
    "simplify": "simplify",
    "calibrate": "calibrate",
    "sensitivity": "sensitivity",
    "build-engine": "build_engine",
    "verify": "verify",
    "evaluate": "evaluate",
    "benchmark": "benchmark",
    "predict": "predict",
    "report": "report",
    "inspect": "inspect",
    "doctor": "doctor",
}


@dataclass
class Settings:
    """Settings of every command.

    Attributes:
        debug: Show tracebacks and the debug log.
    """

    debug: bool = False


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names in the order of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command and gives it `--debug`, which every command has."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"fcn_deploy.cli.{_COMMANDS[cmd_name]}").command
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; for an unknown name the error suggests the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            # click looks for the nearest among the commands of the group, and here they are not imported yet.
            raise click.NoSuchCommand(error.command_name, possibilities=_COMMANDS, ctx=ctx) from None


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).debug = True
        logging.getLogger("fcn_deploy").setLevel(logging.DEBUG)


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_debug,
        help="Show the debug log, and the traceback of an error.",
    )


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, params=[_debug_option()])
@click.version_option(__version__, prog_name="fcn-deploy")
def cli() -> None:
    """Deploy fully convolutional segmentation nets: PyTorch to ONNX to INT8 engines, with parity measured.

    \b
    All steps:      fcn-deploy deploy --weights W --calib-data DIR --int8 -o OUT
    Try it first:   fcn-deploy deploy --demo -o OUT

    Exit codes: 0 done, 2 usage, 3 gate failed, 4 precision not achieved, 5 engine does not fit this machine, 6 bad
    input or path, 7 something is not installed, 130 interrupted, 143 terminated, 1 anything else.
    """  # noqa: D301 - click reads the backspace as "do not rewrap"


class _Handler(logging.Handler):
    """Writes to the current stderr: while a spinner turns, that is a stream that keeps lines apart from it."""

    def emit(self, record: logging.LogRecord) -> None:
        put(self.format(record), err=True)


class _Forwarding(logging.Handler):
    """Sends to the debug log what has no handler."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.debug("%s: %s", record.name, record.getMessage(), exc_info=record.exc_info)


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        text = printable(with_flags(record.message))
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns its exit code.

    Args:
        arguments: Without the program's name.
    """
    settings = Settings()
    handler = _Handler()
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("fcn_deploy")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    try:
        if _COMPLETE in os.environ:
            return _complete(os.environ[_COMPLETE])
        # Not click's `main`: it takes every broken pipe for that of the output, and ends the process.
        with cli.make_context(_NAME, list(arguments), obj=settings) as context, _warnings_logged(logger):
            cli.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        for line in shown.getvalue().splitlines():
            say(line, err=True)
        return error.exit_code
    except Terminated:
        say("terminated; nothing is left half written", err=True)
        return 143
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr is not None and sys.stderr.isatty():
            say("", err=True)  # the terminal has written ^C
        say("interrupted; nothing is left half written", err=True)
        return 130
    except FcnDeployError as error:
        _report(with_flags(f"error: {error}"), settings)
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            _report(f"unexpected error: {error}", settings)
            return 1
        _report(f"error: {missing}", settings)
        return missing.exit_code
    except SystemExit as stop:  # the user's own code called exit: it does not choose our exit code
        _report(f"unexpected error: something called exit({stop.code!r})", settings)
        return 1
    except Exception as error:
        _report(f"unexpected error: {type(error).__name__}: {error}; --debug shows where", settings)
        return 1
    return 0


def _complete(instruction: str) -> int:
    """Answers a shell that asks what may stand at the cursor, or for the script that makes it ask."""
    from click.shell_completion import get_completion_class, shell_complete

    shell, _, wish = instruction.partition("_")
    if get_completion_class(shell) is None or wish not in ("source", "complete"):
        expected = "bash_source, zsh_source or fish_source"
        raise UsageError(f"{_COMPLETE} is not understood", got=repr(instruction), expected=expected)
    return shell_complete(cli, {}, _NAME, _COMPLETE, instruction)


@contextmanager
def _warnings_logged(logger: logging.Logger) -> Iterator[None]:
    """Sends what libraries warn of to the debug log: it is for those who write code, not for its users.

    They do so by `warnings`, or by a log of their own, which goes to stderr for lack of a handler.
    """
    shown, last = warnings.showwarning, logging.lastResort

    def log(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *arguments: object, **more: object
    ) -> None:
        logger.debug("%s: %s (%s:%d)", category.__name__, message, filename, lineno)

    warnings.showwarning = log
    logging.lastResort = _Forwarding(logger)
    try:
        yield
    finally:
        warnings.showwarning, logging.lastResort = shown, last


def _report(message: str, settings: Settings) -> None:
    if settings.debug:
        traceback.print_exc()
    say(" ".join(message.splitlines()), err=True)


def with_flags(message: str) -> str:
    """Returns a message with the parameters that the library names as flags."""
    return render(message, _flags()) if "`" in message else message


@functools.cache
def _flags() -> dict[str, str]:
    context = click.Context(cli)
    commands = (cli.get_command(context, name) for name in _COMMANDS)
    return flags_of(command for command in commands if command is not None)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C: what runs removes its temporary files, and ends."""


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    raise Terminated


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminate)
    streams = Streams()
    code = run(sys.argv[1:])
    if (failure := streams.failure) is not None:
        say(f"error: cannot write to stdout; got {failure.strerror}", err=True)
        code = code or InputError.exit_code
    sys.exit(code)
