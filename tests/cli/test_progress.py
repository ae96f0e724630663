"""What progress looks like on a terminal, and that a log gets a line now and then."""

import contextlib
import io
import logging
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading
import time

import click
import pytest

from fcn_deploy.cli import progress as module
from fcn_deploy.cli.app import cli, run
from fcn_deploy.cli.progress import Stage, TerminalProgress, duration
from tests.support.terminal import lines_shown


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


@pytest.fixture
def hurried(monkeypatch):
    """A log gets its lines soon, for a test that does not wait for seconds."""
    monkeypatch.setattr(module, "_FIRST", 0.05)
    monkeypatch.setattr(module, "_EVERY", 0.2)


# On a terminal


def test_work_of_unknown_length_has_a_spinner_and_leaves_its_duration(take_stderr, started):
    terminal = take_stderr()
    with TerminalProgress().working("exporting"):
        assert started() == 1
        time.sleep(0.3)
        assert "running for 0." in terminal.getvalue()
    assert started(timeout=5) == 0
    assert sys.stderr is terminal
    assert re.fullmatch(r"exporting: 0\.\d s", lines_shown(terminal.getvalue())[-1])


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
        assert "25%" in terminal.getvalue()
        drawn = terminal.getvalue()
        for _ in range(5):
            show(0.5)
        assert terminal.getvalue() == drawn, "more than ten times a second"


def test_no_thread_draws_what_is_measured_inside_another_stage(take_stderr, started):
    take_stderr()
    progress = TerminalProgress()
    with progress.working("building"):
        assert started() == 1
        with progress.measuring("timing"):
            assert started(timeout=5) == 0
        assert started() == 1
    assert started(timeout=5) == 0


def test_stages_within_a_stage_are_shown_together_and_each_leaves_a_line(take_stderr):
    terminal = take_stderr()
    progress = TerminalProgress()
    with progress.working("building"):
        assert list(progress.track("abc", 3, "trying")) == ["a", "b", "c"]
    lines = lines_shown(terminal.getvalue())
    assert [line.partition(":")[0] for line in lines[-2:]] == ["trying", "building"]
    assert re.fullmatch(r"trying: 3 of 3, \d\.\d s", lines[-2])


def test_a_warning_in_mid_work_stands_on_a_line_of_its_own(take_stderr, monkeypatch, capsys):
    def warn(**kwargs):
        with TerminalProgress().working("exporting"):
            logging.getLogger("fcn_deploy.test").warning("beware")
            click.echo("a result")

    monkeypatch.setattr(cli.get_command(None, "inspect"), "callback", warn)
    terminal = take_stderr()
    assert run(["inspect", "x"]) == 0
    assert capsys.readouterr().out == "a result\n"
    assert "warning: beware" in lines_shown(terminal.getvalue())


IN_A_PTY = """
    import logging, os, signal, sys, time
    from fcn_deploy.cli.app import cli, run
    from fcn_deploy.cli.progress import TerminalProgress
    from fcn_deploy.errors import InputError

    def work(**options):
        with TerminalProgress() as progress:
            for index in progress.track(range(100), 100, "calibrating"):
                time.sleep(0.15)
                if index == 2:
                    logging.getLogger("fcn_deploy.test").warning("beware")
                    time.sleep(0.15)
                if index == 4:
                    {fails}

    cli.get_command(None, "inspect").callback = work
    sys.exit(run(["inspect", "x"]))
"""


@pytest.mark.parametrize(
    ("fails", "code", "last"),
    [
        ("raise InputError('a.png is damaged')", 6, "error: a.png is damaged"),
        ("raise RuntimeError('no')", 1, "unexpected error: RuntimeError: no; --debug shows where"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted; nothing is left half written"),
    ],
    ids=["error", "unexpected", "control-c"],
)
def test_lines_are_not_glued_to_a_bar(fails, code, last):
    master, slave = pty.openpty()
    script = textwrap.dedent(IN_A_PTY).format(fails=fails)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=slave, stdout=slave, stderr=slave, env=environment
    ) as process:
        os.close(slave)
        written = b""
        with contextlib.suppress(OSError):  # the end of a terminal whose last user has gone
            while block := os.read(master, 4096):
                written += block
    os.close(master)
    assert process.returncode == code
    text = written.decode()
    assert "━" in text, "there was a bar"
    lines = lines_shown(text)
    assert lines[-1] == last
    assert "warning: beware" in lines
    assert re.fullmatch(r"calibrating: stopped after 4 of 100, \d\.\d s", lines[-2])
    assert "━" not in "".join(lines), "the bar is gone"


# In a log


def test_a_log_gets_one_line_for_each_stage_that_is_soon_done(capsys, started):
    progress = TerminalProgress()
    with progress.working("exporting"):
        pass
    with progress.measuring("measuring") as show:
        assert started() == 0
        show(0.5)
    with progress.advancing("building") as show:
        show(0.5)
    assert list(progress.track("ab", 2, "tracking")) == ["a", "b"]
    assert started() == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert re.sub(r"\d\.\d", "T", said.err) == "exporting: T s\nmeasuring: T s\nbuilding: T s\ntracking: 2 of 2, T s\n"


def test_a_log_is_told_of_what_takes_long_but_not_more_often_than_agreed(capsys, hurried):
    with TerminalProgress().working("exporting"):
        time.sleep(0.7)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines[:-1]) <= 4
    assert all(re.fullmatch(r"exporting: running for 0\.\d s", line) for line in lines[:-1])


def test_a_log_is_told_how_many_are_done_and_how_long_the_rest_takes(capsys, hurried):
    for _ in TerminalProgress().track(range(4), 4, "calibrating"):
        time.sleep(0.2)
    said = capsys.readouterr().err
    assert re.search(r"^calibrating: [123] of 4, 0\.\d s, about 0\.\d s left$", said, re.M)


def test_a_log_is_told_of_measurements_only_when_they_report(capsys, hurried):
    with TerminalProgress().measuring("measuring") as show:
        time.sleep(0.3)
        assert capsys.readouterr().err == ""
        show(0.5)
    assert re.match(r"measuring: 50%, 0\.\d s, about 0\.\d s left\n", capsys.readouterr().err)


def test_a_loop_that_an_error_has_left_ends_its_stage(capsys, started):
    def loop(progress):
        for index in progress.track(range(9), 9, "calibrating"):
            if index == 2:
                raise RuntimeError

    with pytest.raises(RuntimeError) as caught, TerminalProgress() as progress:
        loop(progress)
    assert caught.traceback, "which keeps the loop alive"
    assert started() == 0
    assert capsys.readouterr().err.startswith("calibrating: stopped after 2 of 9, 0.")


def test_a_dumb_terminal_is_a_log(take_stderr, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = take_stderr()
    with TerminalProgress().working("exporting"):
        pass
    assert "\x1b" not in terminal.getvalue()


def test_a_line_of_progress_names_flags(capsys):
    TerminalProgress().stage('no images are held out: `calib_method="auto"`')
    assert capsys.readouterr().err == "no images are held out: --calib-method auto\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_are_read_easily(seconds, text):
    assert duration(seconds) == text


def test_no_rest_is_promised_before_anything_is_done():
    assert "left" not in Stage("calibrating", total=5).running()
    assert "left" not in Stage("calibrating", total=5, done=5).running()
    assert "left" in Stage("calibrating", total=5, done=1).running()
    assert Stage("calibrating", total=0).running().startswith("0 of 0, ")


def test_a_stage_that_is_stopped_at_once_leaves_no_line(capsys):
    with TerminalProgress() as progress, pytest.raises(RuntimeError), progress.working("reading net.pth"):
        raise RuntimeError
    assert capsys.readouterr().err == ""


# Items with a note


def test_what_is_counted_shows_its_note_while_it_runs_and_in_the_end(capsys, hurried):
    with TerminalProgress().counting("predicting a.mp4", 9, lambda: "12.3 frames/s") as show:
        for done in range(1, 5):
            time.sleep(0.1)
            show(done)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"predicting a\.mp4: \d of 9, 12\.3 frames/s, 0\.\d s(, about .* left)?", lines[0])
    assert re.fullmatch(r"predicting a\.mp4: 4 of 4, 12\.3 frames/s, 0\.\d s", lines[-1])


def test_what_is_counted_without_a_known_end(capsys):
    with TerminalProgress().counting("predicting camera:0", None, lambda: "") as show:
        show(7)
    assert re.fullmatch(r"predicting camera:0: 7, 0\.\d s\n", capsys.readouterr().err)


def test_what_is_counted_and_breaks_off_says_how_far_it_was(capsys):
    def breaks():
        with TerminalProgress().counting("predicting", 9, lambda: "1 frames/s") as show:
            show(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks()
    assert re.fullmatch(r"predicting: stopped after 3 of 9, 1 frames/s, 0\.\d s\n", capsys.readouterr().err)


def test_a_terminal_draws_the_note(take_stderr):
    terminal = take_stderr()
    with TerminalProgress().counting("predicting", None, lambda: "12.3 frames/s") as show:
        show(3)
        time.sleep(0.3)
    assert "3, 12.3 frames/s" in terminal.getvalue()
