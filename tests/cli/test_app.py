"""The boundary: help, exit codes, what a traceback needs, and how fast it answers."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import time
import warnings

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


def _completions(*words, shell="bash", **more):
    environment = {
        "PATH": os.environ["PATH"],
        "_FCN_DEPLOY_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(["fcn-deploy", *words]),
        "COMP_CWORD": str(len(words)),
        **more,
    }
    result = subprocess.run(
        [sys.executable, "-m", "fcn_deploy"], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_are_given_their_scripts(shell, monkeypatch, capsys):
    monkeypatch.setenv("_FCN_DEPLOY_COMPLETE", f"{shell}_source")
    assert run([]) == 0
    said = capsys.readouterr()
    assert f"_FCN_DEPLOY_COMPLETE={shell}_complete" in said.out
    assert said.err == ""


def test_bash_completes_with_the_script_it_is_given(tmp_path):
    program = tmp_path / "fcn-deploy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m fcn_deploy "$@"\n')
    program.chmod(0o755)
    script = textwrap.dedent("""
        source <(_FCN_DEPLOY_COMPLETE=bash_source fcn-deploy)
        COMP_WORDS=(fcn-deploy veri) COMP_CWORD=1
        $(complete -p fcn-deploy | sed 's/.*-F \\([^ ]*\\).*/\\1/') fcn-deploy
        echo "${COMPREPLY[@]}"
    """)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert (result.stdout, result.stderr) == ("verify\n", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("exp",), ["plain,export"]),
        (("build-engine", "x", "--back"), ["plain,--backend"]),
        (("build-engine", "x", "--backend", "tensorrt-"), ["plain,tensorrt-rtx"]),
        (("predict", "x", "y", "--save", "labels,o"), ["plain,labels,overlay"]),
        (("evaluate", "x", "--label-map", "ade"), ["plain,ade20k"]),
        (("evaluate", "x", "--label-map", "map"), ["file,map"]),
        (("verify", "x", "--data", "d"), ["dir,d"]),
        (("inspect", "f"), ["file,f"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_commands_options_choices_and_paths_are_completed(words, found):
    assert _completions(*words) == found


def test_every_path_on_the_command_line_is_completed():
    """No option or argument that names a file is a plain text, for which a shell offers nothing."""
    paths = re.compile(r"\b(dir|file|ref|engine|input|map|output|weights|model|ranges|log|plot)\b", re.I)
    context = click.Context(cli)
    for name in module._COMMANDS:
        for parameter in cli.get_command(context, name).params:
            metavar = str(parameter.metavar or parameter.name)
            if paths.search(metavar) and type(parameter.type) is type(click.STRING):
                pytest.fail(f"{name} {parameter.name}")


def test_an_unknown_shell_is_a_usage_error(monkeypatch, capsys):
    monkeypatch.setenv("_FCN_DEPLOY_COMPLETE", "tcsh_source")
    assert run([]) == 2
    assert "expected bash_source" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("inspect", ""), ("export", "--weights", "", "-o", "x.onnx")])
def test_an_empty_path_is_a_usage_error(arguments, capsys):
    assert run(list(arguments)) == 2
    assert "got an empty text" in capsys.readouterr().err


def test_a_broken_pipe_of_our_own_is_not_taken_for_that_of_the_output(monkeypatch, capsys):
    def fail(**kwargs):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(cli.get_command(None, "inspect"), "callback", fail)
    assert run(["inspect", "x"]) == 1
    assert capsys.readouterr().err.startswith("unexpected error: BrokenPipeError: ")


def test_logs_of_libraries_go_to_the_debug_log(monkeypatch, capfd):
    def warn(context):
        logging.getLogger("some.library").warning("inference %s", "failed", exc_info=ValueError("why"))

    monkeypatch.setattr(cli, "invoke", warn)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # pytest has some, and a command has none
    assert run(["doctor"]) == 0
    assert capfd.readouterr().err == ""
    assert run(["--debug", "doctor"]) == 0
    assert "debug: some.library: inference failed" in capfd.readouterr().err


def test_warnings_of_libraries_go_to_the_debug_log(monkeypatch, capfd):
    def warn(context):
        warnings.warn("old way", FutureWarning, stacklevel=1)

    monkeypatch.setattr(cli, "invoke", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(["doctor"]) == 0
        assert "old way" not in capfd.readouterr().err
        run(["--debug", "doctor"])
    assert "debug: FutureWarning: old way" in capfd.readouterr().err
