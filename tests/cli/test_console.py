"""What progress looks like on a terminal, and that a log or a pipe gets plain lines."""

import io
import logging
import sys
import threading

import click
import pytest

from fcn_deploy.cli.app import cli, run
from fcn_deploy.cli.console import TerminalProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def take_stderr(monkeypatch):
    """Puts a terminal in the place of stderr; called by a test, for pytest sets stderr anew when fixtures are made."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def take():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return take


@pytest.fixture
def started():
    """Says how many threads run that did not when the test began, once those that were told to end have."""
    before = set(threading.enumerate())

    def started(timeout=0):
        others = set(threading.enumerate()) - before
        for thread in others:
            thread.join(timeout)
        return sum(thread.is_alive() for thread in others)

    return started


def test_work_of_unknown_length_is_a_line_with_a_spinner_below(take_stderr, started):
    terminal = take_stderr()
    with TerminalProgress().working("exporting"):
        assert terminal.getvalue().startswith("exporting\n")
        assert started() == 1
    assert "0:00:00" in terminal.getvalue()
    assert started(timeout=5) == 0
    assert sys.stderr is terminal


def test_the_spinner_goes_with_what_failed(take_stderr, started):
    terminal = take_stderr()
    with pytest.raises(KeyboardInterrupt), TerminalProgress().working("exporting"):
        raise KeyboardInterrupt
    assert started(timeout=5) == 0
    assert sys.stderr is terminal


def test_what_is_measured_has_a_bar_that_no_thread_draws(take_stderr, started):
    terminal = take_stderr()
    with TerminalProgress().measuring("measuring") as show:
        assert started() == 0
        show(0.25)
        assert " 25%" in terminal.getvalue()
        drawn = terminal.getvalue()
        for _ in range(5):
            show(0.5)
        assert terminal.getvalue() == drawn, "more than ten times a second"
    assert terminal.getvalue().startswith("measuring\n")


def test_off_a_terminal_there_are_lines_alone(capsys, started):
    progress = TerminalProgress()
    with progress.working("exporting"):
        assert started() == 0
    with progress.measuring("measuring") as show:
        show(0.5)
    assert list(progress.track("ab", 2, "tracking")) == ["a", "b"]
    assert capsys.readouterr() == ("", "exporting\nmeasuring\ntracking\n")


def test_a_warning_in_mid_work_stands_on_a_line_of_its_own(take_stderr, monkeypatch, capsys):
    def warn(**kwargs):
        with TerminalProgress().working("exporting"):
            logging.getLogger("fcn_deploy.test").warning("beware")
            click.echo("a result")

    monkeypatch.setattr(cli.get_command(None, "inspect"), "callback", warn)
    terminal = take_stderr()
    assert run(["inspect", "x"]) == 0
    assert capsys.readouterr().out == "a result\n"
    (line,) = [line for line in terminal.getvalue().splitlines() if "beware" in line]
    assert line.rpartition("\x1b[2K")[2] == "warning: beware", "the spinner's line is cleared before"


def test_a_line_of_progress_names_flags(capsys):
    TerminalProgress().stage('no images are held out: `calib_method="auto"`')
    assert capsys.readouterr().err == "no images are held out: --calib-method auto\n"
