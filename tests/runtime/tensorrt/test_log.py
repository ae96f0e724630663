"""The log of a library: each thread gets the reasons of its own errors, and a full disk never reaches the library."""

import logging
import threading
from types import SimpleNamespace

import pytest

from fcn_deploy.errors import InputError
from fcn_deploy.runtime.tensorrt.log import LibraryLog


@pytest.fixture
def log():
    return LibraryLog(SimpleNamespace(__name__="fake", ILogger=object))


def say(log, message, severity="ERROR"):
    log.logger.log(SimpleNamespace(name=severity), message)


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_threads_whose_calls_fail_at_once_get_their_own_reasons(log):
    both, found = threading.Barrier(2), {}

    def fail(reason):
        say(log, reason)
        both.wait()
        found[reason] = log.take_own_errors()

    threads = [threading.Thread(target=fail, args=(reason,)) for reason in ("out of memory", "bad shape")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"out of memory": "out of memory", "bad shape": "bad shape"}
    assert log.errors() == []


def test_errors_of_the_librarys_own_threads_are_taken_if_there_are_no_others(log):
    in_a_thread(lambda: say(log, "a worker failed"))
    assert log.take_own_errors() == "a worker failed"
    assert log.take_own_errors() == "no reason given"


def test_all_errors_are_taken_in_order(log):
    say(log, "first")
    in_a_thread(lambda: say(log, "second"))
    say(log, "third", "INTERNAL_ERROR")
    assert log.take_errors() == "first; second; third"


class FullDisk:
    def __init__(self):
        self.closed = False

    def write(self, text):
        raise OSError(28, "No space left on device")

    def close(self):
        self.closed = True
        raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_file_and_neither_the_build_nor_the_errors(log, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "fcn_deploy")
    with log.recording(tmp_path / "build.log"):
        real, log._file = log._file, FullDisk()
        say(log, "one", "INFO")
        say(log, "two")
        real.close()
    assert log.take_errors() == "two"
    assert [record.message for record in caplog.records] == [
        "the log of fake ends here, because it cannot be written: [Errno 28] No space left on device"
    ]


def test_what_comes_after_the_recording_is_not_an_error(log, tmp_path, caplog):
    with log.recording(tmp_path / "build.log"):
        say(log, "one", "INFO")
        file = log._file
    file.close()
    say(log, "two", "INFO")
    assert (tmp_path / "build.log").read_text() == "INFO: one\n"
    with pytest.raises(InputError, match="cannot write"), log.recording(tmp_path):
        pass
    assert not caplog.records


def test_two_builds_after_each_other_hear_their_own_messages_alone(log, tmp_path):
    heard = {"first": [], "second": []}
    for name, messages in heard.items():
        with log.recording(tmp_path / name, messages.append):
            say(log, f"{name} layers", "VERBOSE")
        say(log, "nobody's", "VERBOSE")
    assert heard == {"first": ["first layers"], "second": ["second layers"]}
    assert (tmp_path / "first").read_text() == "VERBOSE: first layers\n"


def test_a_build_in_a_second_thread_waits_for_the_first(log, tmp_path):
    """Else the layers of the first plan would count as those of the second, and its file would stay empty."""
    heard, started = {"first": [], "second": []}, threading.Event()

    def second():
        started.set()
        with log.recording(tmp_path / "second", heard["second"].append):
            say(log, "second layers", "VERBOSE")

    thread = threading.Thread(target=second)
    with log.recording(tmp_path / "first", heard["first"].append):
        thread.start()
        assert started.wait(5)
        thread.join(0.05)
        say(log, "first layers", "VERBOSE")
    thread.join(5)
    assert heard == {"first": ["first layers"], "second": ["second layers"]}
    assert (tmp_path / "first").read_text() == "VERBOSE: first layers\n"
    assert (tmp_path / "second").read_text() == "VERBOSE: second layers\n"


def test_after_a_build_that_failed_the_next_one_is_not_held_up(log):
    with pytest.raises(ZeroDivisionError), log.recording(None):
        raise ZeroDivisionError
    with log.recording(None) as said:
        assert said is log
