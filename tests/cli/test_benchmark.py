"""What `benchmark` says beside the times."""

import json
import os

import pytest

QUICK = ("--duration", 0, "--warmup", 0, "--shape", "24x32")


def test_threads_load_and_cpu_stand_beside_the_times(call, exported, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.25, 0.0, 0.0))
    benchmark = ("benchmark", exported("fcn8s"), "--threads", 1, *QUICK)
    report = json.loads(call(*benchmark, "--iterations", 5, "--json").out)
    assert (report["threads"], report["load"]) == (1, 0.25)
    assert report["cores"] >= 1
    assert report["warnings"] == []
    assert report["engines"][0]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    said = call(*benchmark, "--iterations", 5)
    assert "1 thread, load 0.25 before the start" in " ".join(said.out.split())
    assert "1.00x, as fast" in said.out
    assert "warning" not in said.err


def test_few_rounds_have_no_percentiles_and_no_quartiles(call, exported):
    benchmark = ("benchmark", exported("fcn8s"), *QUICK, "--iterations", 3)
    row = json.loads(call(*benchmark, "--json").out)["engines"][0]
    assert row["ratio"] == {"median": 1.0, "low": None, "high": None}
    assert set(row["percentiles_ms"].values()) == {None}
    said = " ".join(call(*benchmark).out.split())
    assert "3 rounds; time ratios: median engine" in said
    assert "percentiles and quartiles take 5 rounds or more" in said
    assert "nan" not in said


@pytest.mark.parametrize(
    ("threads", "load", "words"),
    [(1, 10_000.0, "warning: the machine is busy"), (512, 0.0, "warning: --threads 512 is more than the")],
)
def test_a_busy_machine_and_too_many_threads_are_warned_about(call, exported, monkeypatch, threads, load, words):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("fcn_deploy.workflows.benchmarking.opened", _nothing_opened)
    said = call("benchmark", exported("fcn8s"), "--threads", threads, *QUICK, code=6)
    assert words in said.err


def _nothing_opened(*arguments):
    from fcn_deploy.errors import InputError

    raise InputError("stopped here")
