"""A device has the extras `cpu` and `cli`, and no host library: it can measure, and is told what else it would need."""

import json
import re
import subprocess
import sys

import pytest

from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.installation import install_command
from tests.support.building import build

BLOCKED = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxsim", "safetensors")

PROGRAM = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from fcn_deploy.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def engine(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("device") / "net.onnx"
    build(exported("fcn8s"), BuildConfig()).save(path)
    return path


def _run(*arguments):
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_engines_are_measured_and_compared_without_a_host_library(engine, exported, photo_folder):
    quick = ("--duration", 0, "--iterations", 1, "--warmup", 0)
    result = _run("benchmark", engine, "--shape", "32x40", *quick, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["engines"][0]["name"] == "net.onnx"
    result = _run("verify", engine, "--reference", exported("fcn8s"), "--data", photo_folder)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--weights", "{weights}", "-o", "{output}"),
        ("inspect", "{engine}"),
        ("verify", "{engine}", "--weights", "{weights}", "--data", "{photos}"),
    ],
)
def test_what_needs_the_host_says_what_to_install(engine, checkpoint_file, photo_folder, tmp_path, arguments):
    files = {"engine": engine, "photos": photo_folder, "output": tmp_path / "x.onnx"}
    files["weights"] = checkpoint_file("fcn8s")
    result = _run(*(str(a).format(**files) for a in arguments))
    assert result.returncode == 7
    assert re.search(r"(extra 'host'\) )?is not installed; fix: ", result.stderr.splitlines()[-1])
    assert result.stderr.splitlines()[-1].endswith(install_command("host"))
