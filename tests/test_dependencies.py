"""A package that is missing is named with its extra, in Python and by the command line."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fcn_deploy.dependencies import missing_package
from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command
from tests.support.blocked import BLOCK

ROOT = Path(__file__).parents[1]
HOST = "torch ml_dtypes onnx onnx_ir onnxscript onnxsim safetensors matplotlib jinja2"
CLI = "click PIL rich"


def _python(code, blocked):
    command = [sys.executable, "-W", "error", "-c", BLOCK + code, blocked]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("module", "extra"), [("click", "cli"), ("PIL.Image", "cli"), ("onnx.helper", "host")])
def test_the_error_names_the_extra_and_the_command(module, extra):
    error = missing_package(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert isinstance(error, DependencyError)
    name = module.partition(".")[0]
    assert str(error) == f"{name} (extra '{extra}') is not installed; fix: {install_command(extra)}"


@pytest.mark.parametrize("name", [None, "fcn_deploy.nowhere", "numpy", "clicker"])
def test_a_module_of_no_extra_is_no_missing_package(name):
    assert missing_package(ModuleNotFoundError("none", name=name)) is None


@pytest.mark.parametrize("lacking", ["click", CLI, f"{CLI} {HOST}"])
@pytest.mark.parametrize("arguments", [[], ["--help"], ["doctor", "--json"]])
def test_without_click_the_command_line_is_one_line_and_exits_with_7(lacking, arguments):
    code = f"sys.argv[1:] = {arguments!r}\nfrom fcn_deploy.cli import main\nmain()"
    result = _python(code, lacking)
    assert (result.returncode, result.stdout) == (7, "")
    assert result.stderr == f"error: click (extra 'cli') is not installed; fix: {install_command('cli')}\n"


def test_without_click_python_m_says_the_same(tmp_path):
    site = Path(importlib.util.find_spec("numpy").origin).parents[1]
    (tmp_path / "numpy").symlink_to(site / "numpy")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-S", "-m", "fcn_deploy", "doctor"]  # -S: no other package is to be found
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (result.returncode, result.stdout) == (7, "")
    # The metadata of this copy are not found there, so the extra's packages are not either.
    assert re.fullmatch(r"error: click \(extra 'cli'\) is not installed; fix: .*extra 'cli'.*\n", result.stderr)


@pytest.mark.parametrize(
    ("lacking", "command"), [("rich", ["doctor"]), ("PIL", ["predict", "net.onnx", "frames", "-o", "out"])]
)
def test_a_command_that_lacks_one_of_them_says_so(lacking, command):
    code = f"sys.argv[1:] = {command!r}\nfrom fcn_deploy.cli import main\nmain()"
    result = _python(code, lacking)
    assert result.returncode == 7, result.stderr
    wanted = f"error: {lacking} (extra 'cli') is not installed; fix: {install_command('cli')}"
    assert result.stderr.splitlines()[-1] == wanted


@pytest.mark.parametrize(("name", "lacking", "extra"), [("predict", "PIL", "cli"), ("load_exported", HOST, "host")])
def test_a_public_function_that_lacks_a_package_raises_the_error(name, lacking, extra):
    code = f"""
import json
import fcn_deploy as fd
try:
    fd.{name}
except fd.DependencyError as error:
    print(json.dumps([str(error), type(error.__cause__).__name__]))
"""
    result = _python(code, lacking)
    assert result.returncode == 0, result.stderr
    message, cause = json.loads(result.stdout)
    assert f"(extra '{extra}') is not installed; fix: {install_command(extra)}" in message
    assert cause == "ModuleNotFoundError"
