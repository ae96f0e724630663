"""Whatever files, classes, layers and models are called, their names are shown, and a terminal obeys none of them."""

import io
import logging
import re
import sys
import unicodedata
from dataclasses import replace

import click
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity, Ratio
from fcn_deploy.artifacts.sensitivity import Fidelity, LayerSensitivity, Sensitivity
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.cli.app import cli, run
from fcn_deploy.cli.console import print_table
from fcn_deploy.cli.progress import TerminalProgress
from fcn_deploy.diagnostics.checkup import Checkup
from fcn_deploy.diagnostics.libraries import Library
from fcn_deploy.diagnostics.machine import Cpu, Machine, Nvidia
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.reporting.doctor import doctor_tables
from fcn_deploy.reporting.facts import brief, detail_table, facts_table
from fcn_deploy.reporting.tables import accuracy_table, benchmark_table, sensitivity_table, summary_table
from fcn_deploy.text import printable

HOSTILE = [
    *("[/b]", "[red]x", "[link=file:///x]", "\\[", ":smile:", "$x$", "%s", "{x}"),  # what Python's libraries obey
    *("\x1b[31m", "\x1b]8;;x\x07", "\x9b2J", "\r", "\n", "\t", "\0"),  # what terminals obey
    *("\u202e", "\u2066", "\u2028", "\udcff"),
    *("a", "é", "東"),
]
names = st.lists(st.one_of(st.sampled_from(HOSTILE), st.characters()), min_size=1, max_size=5).map("".join)
_MARKS = [*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]  # they turn the direction of writing


def with_names(test):
    for name in ("".join(HOSTILE[:8]), "".join(HOSTILE[8:19]), "[/b]", "\udcff.png"):
        test = example(name)(test)
    return settings(max_examples=60, deadline=None)(given(names)(test))


def obeyed(text):
    """Returns what of a text a terminal would obey; ends of lines are the tables' own."""
    found = [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _MARKS]
    return [letter for letter in found if letter != "\n"]


def shows(table, name):
    """Checks that a table shows a name, on a terminal and in a log, where no column is too narrow for it."""
    for column in table.columns:
        column.max_width = None
    log = Console(file=io.StringIO(), width=400)
    log.print(table, soft_wrap=True)
    assert not obeyed(log.file.getvalue())
    assert printable(name).strip() in log.file.getvalue()
    terminal = Console(file=io.StringIO(), width=400, force_terminal=True, color_system="truecolor")
    terminal.print(table)
    assert not obeyed(re.sub(r"\x1b\[(0|1|3|1;3)m", "", terminal.file.getvalue())), "more than bold and italic"


@with_names
def test_names_are_printable_once_and_for_all(name):
    shown = printable(name)
    assert not obeyed(shown)
    assert "\n" not in shown
    assert printable(shown) == shown


@with_names
def test_tables_of_measurements_show_names(name):
    shows(accuracy_table(f"{name} on 2 images", (name, "b"), np.eye(2, dtype=np.int64)), name)
    timing = Timing("x", np.array([1.0, 2.0]))
    shows(benchmark_table([timing], [name], 1, (90,)), name)
    fidelity = Fidelity(1.0, 30.0)
    layer = LayerSensitivity(name, True, 10, fidelity, fidelity)
    shows(sensitivity_table(Sensitivity("onnxruntime", "mse", 1, (8, 8), fidelity, (layer,))), name)


@with_names
def test_a_summary_shows_names(name):
    engine = EngineSummary(
        name,
        1,
        "fp32",
        Gate(0.5, True),
        (),
        Parity(1, 1.0),
        80.0,
        Drop(0, 0, 0),
        1.0,
        {},
        Ratio(1, 1, 1),
        Ratio(1, 1, 1),
    )
    truth = GroundTruth(1, 0.5, (255,), (name,))
    summary = Summary(name, name, 0.0, {"judged": 1}, (8, 8), 1.0, 80.0, (engine,), truth, None, (name,))
    shows(summary_table(summary), name)


@with_names
def test_facts_show_names(name):
    tensor = {"shape": [1, 2], "parameters": 2, "dtype": name}
    spec = {"classes": [name], "variant": name}
    facts = {"kind": "checkpoint", "layout": name, "tensors": {name: tensor}, name: name, "spec": spec}
    shows(facts_table(name, brief(facts)), name)
    shows(detail_table(facts), name)
    for facts in (
        {"kind": "ranges", "tensors": {name: {"min": 0, "max": 1, "bins": 1}}},
        {"kind": "plan", "precisions": {name: {"asked": name, "achieved": name}}},
    ):
        shows(detail_table(facts), name)


@with_names
def test_doctor_shows_names(name):
    machine = Machine(name, name, name, Cpu(name, 1, None), Nvidia(None, (), name))
    library = Library(name, name, True, True, name, "onnx", (name,), (("cpu", (name,)),), name, name)
    tables = doctor_tables(Checkup(machine, (library, replace(library, engines=None))))
    assert len(tables) == 4
    for table in tables:
        shows(table, name)


def _shows_on_stderr(work, code):
    """Returns what a command prints on stderr that does `work`: one line."""
    command = cli.get_command(click.Context(cli), "inspect")
    callback, stderr = command.callback, sys.stderr
    command.callback, sys.stderr = (lambda **options: work()), io.StringIO()
    try:
        assert run(["inspect", "x"]) == code
        said = sys.stderr.getvalue()
    finally:
        command.callback, sys.stderr = callback, stderr
    assert not obeyed(said)
    assert said.count("\n") == 1
    return said


@with_names
def test_errors_warnings_and_progress_show_names(name):
    def fail(error):
        raise error

    def warn():
        logging.getLogger("fcn_deploy.test").warning("%s is odd", name)

    def work():
        with TerminalProgress().working(f"reading {name}"):
            pass

    for said in (
        _shows_on_stderr(lambda: fail(InputError(f"cannot read <{name}>")), 6),
        _shows_on_stderr(warn, 0),
        _shows_on_stderr(work, 0),
    ):
        assert printable(name) in said
    _shows_on_stderr(lambda: fail(RuntimeError(name)), 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_usage_errors_show_names(name, capsys):
    assert run([name.replace("\0", "")]) == 2
    assert not obeyed(capsys.readouterr().err)


def test_results_show_names(capsys):
    print_table(accuracy_table("a\x1b[2Jb", ("[/b]", "\n"), np.eye(2, dtype=np.int64)))
    said = capsys.readouterr().out
    assert r"a\x1b[2Jb" in said
    assert r"\n" in said
