"""What happens to output whose reader goes away, or that does not fit on a disk."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import fcn_deploy

COMMANDS = (("doctor",), ("doctor", "--json"), ("--help",), ("export", "--help"), ("--version",))


def _shell(line, **options):
    line = line.replace("fcn-deploy", f"{sys.executable} -m fcn_deploy")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_closed_pipe_is_no_error_and_says_nothing(arguments):
    # `true` ends at once, and the pipe is closed before anything is written.
    result = _shell(f"fcn-deploy {' '.join(arguments)} | true; echo ${{PIPESTATUS[0]}}")
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_the_exit_code_is_that_of_the_work_though_nobody_reads_on():
    result = _shell("fcn-deploy inspect nowhere.onnx 2>&1 | true; echo ${PIPESTATUS[0]}")
    assert (result.stdout, result.stderr) == ("6\n", "")


def test_more_than_a_pipe_holds_is_dropped_when_its_reader_has_gone():
    script = textwrap.dedent("""
        from fcn_deploy.cli import app
        app.run = lambda arguments: print("x" * 300_000) or 3
        app.main()
    """)
    result = _shell(f"{sys.executable} -c '{script}' | head -c 1; echo ${{PIPESTATUS[0]}}")
    assert (result.stdout, result.stderr) == ("x3\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full")
def test_a_full_disk_is_an_error():
    result = _shell("fcn-deploy --version > /dev/full")
    assert result.returncode == 6
    assert result.stderr == "error: cannot write to stdout; got No space left on device\n"


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0)])
def test_output_may_be_closed_from_the_start(closed, code):
    result = _shell(f"fcn-deploy doctor {closed}")
    assert result.returncode == code
    assert result.stderr == ""


def test_what_stdout_cannot_encode_is_escaped(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    script = "from fcn_deploy.cli import app; app.run = lambda arguments: print(chr(252)) or 0; app.main()"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "\\xfc\n"


@pytest.mark.parametrize("call", [r"\bclick\.echo\(", r"\bconsole\.print\(", r"(?<!\w)print\(", r"(?<!\w)Table\("])
def test_everything_is_printed_where_names_are_made_harmless(call):
    package = Path(fcn_deploy.__file__).parent
    found = {path.name for path in package.rglob("*.py") if re.search(call, path.read_text())}
    assert found <= {"console.py"} | ({"tables.py"} if "Table" in call else set())
