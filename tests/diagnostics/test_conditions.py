"""Under which conditions times are measured, and when they are doubtful."""

import os

import pytest

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.diagnostics.conditions import timing_conditions, timing_warnings


def test_the_conditions_are_those_of_this_machine(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 9.0, 9.0))
    found = timing_conditions(2)
    assert (found.threads, found.load) == (2, 1.5)
    assert found.cores >= 1
    assert found.cpu
    assert Conditions.from_json(found.to_json()) == found


def test_a_system_without_a_load_average_is_no_error(monkeypatch):
    def none():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", none)
    found = timing_conditions(None)
    assert found.load is None
    assert str(found).startswith("default threads, load unknown before the start")
    assert timing_warnings(found, 2) == ()


@pytest.mark.parametrize(
    ("threads", "load", "said"),
    [
        (2, 4.0, []),
        (2, 4.1, ["the machine is busy: its load was 4.1 on 4 cores"]),
        (3, 0.0, ["`threads` 3 is more than the 2 cores"]),
        (None, 0.0, []),
        (3, 5.0, ["the machine is busy", "`threads` 3"]),
    ],
)
def test_a_busy_machine_and_too_many_threads_are_warned_about(threads, load, said):
    warnings = timing_warnings(Conditions(threads, load, 2, "a CPU"), 4)
    assert len(warnings) == len(said)
    assert all(warning.startswith(words) for warning, words in zip(warnings, said, strict=True))


def test_a_document_of_an_earlier_version_states_none():
    assert Conditions.from_json({"shape": "1x2x3", "threads": 2}) is None
