"""The boundary: help, exit codes, what a traceback needs, and how fast it answers."""

import json
import subprocess
import sys
import time

import click
import pytest

from fcn_deploy import errors
from fcn_deploy.cli import app as module
from fcn_deploy.cli.app import cli, run

FORBIDDEN = ("torch", "onnx", "onnx_ir", "onnxruntime", "PIL", "numpy", "rich")


def _run(*arguments):
    return subprocess.run([sys.executable, "-m", "fcn_deploy", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom fcn_deploy.cli.app import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")
    for command in ("deploy", "export", "simplify", "calibrate", "build-engine", "verify", "benchmark", "inspect"):
        assert f"  {command} " in result.stdout


@pytest.mark.slow
def test_help_answers_in_half_a_second():
    def seconds():
        begin = time.perf_counter()
        assert _run("--help").returncode == 0
        return time.perf_counter() - begin

    assert sorted(seconds() for _ in range(5))[2] < 0.5


@pytest.mark.parametrize("command", list(module._COMMANDS))
def test_every_command_has_help_and_debug(command, capsys):
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--debug" in text
    assert "--json" in text


def test_version(capsys):
    from fcn_deploy._version import __version__

    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no"), 2),
        (errors.GateError("no"), 3),
        (errors.PrecisionError("no"), 4),
        (errors.ArtifactError("no"), 5),
        (errors.InputError("no"), 6),
        (errors.DependencyError("no"), 7),
        (RuntimeError("no"), 1),
        (KeyboardInterrupt(), 130),
        (click.UsageError("no"), 2),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_each_error_is_one_line_and_its_exit_code(error, code, debug, monkeypatch, capsys):
    def fail(**kwargs):
        raise error

    monkeypatch.setattr(cli.get_command(None, "inspect"), "callback", fail)
    assert run(["inspect", "x.onnx", *(["--debug"] if debug else [])]) == code
    said = capsys.readouterr()
    assert said.out == ""
    known = isinstance(error, KeyboardInterrupt | click.UsageError)
    assert ("Traceback" in said.err) == (debug and not known)
    if not debug and not isinstance(error, click.UsageError):
        assert len(said.err.strip().splitlines()) == 1


def test_unknown_commands_and_options_are_usage_errors(capsys):
    assert run(["bake"]) == 2
    assert run(["inspect", "--nonsense"]) == 2
    assert "No such" in capsys.readouterr().err


def test_a_mistyped_command_is_told_its_nearest(capsys):
    assert run(["exprot"]) == 2
    assert "No such command 'exprot'. Did you mean 'export'?" in capsys.readouterr().err
    assert run(["zzz"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


def test_debug_may_stand_before_the_command(capsys):
    assert run(["--debug", "inspect", "nowhere.onnx"]) == 6
    assert "Traceback" in capsys.readouterr().err


def test_python_m_runs_the_command_line():
    result = _run("inspect", "nowhere.onnx")
    assert result.returncode == 6
    assert result.stderr == "error: cannot read nowhere.onnx; got no such file\n"


def test_json_goes_to_stdout_and_everything_else_to_stderr(exported, ranges_file):
    result = _run("inspect", str(ranges_file("fcn8s")), "--json")
    assert json.loads(result.stdout)["kind"] == "ranges"
    assert result.stderr == ""
