"""What doctor says of this machine and of one with nothing installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What `pip install 'fcn-deploy[cli]'` brings, and what that brings.
DEPENDENCIES = ("numpy", "numpy.libs", "click", "rich", "pygments", "markdown_it", "mdurl", "PIL", "pillow.libs")


def test_doctor_describes_this_machine_and_its_libraries(call):
    facts = json.loads(call("doctor", "--json").out)
    by_name = {library["name"]: library for library in facts["libraries"]}
    assert facts["format"] == 1
    assert facts["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert facts["cpu"]["cores"] >= 1
    runtime = by_name["onnxruntime"]
    assert (runtime["builds"], runtime["runs"]["cpu"]) == (["fp32", "int8"], ["fp32", "int8"])
    assert "CPUExecutionProvider" in runtime["providers"]
    assert by_name["torch"]["installed"]
    assert not by_name["torch"]["loaded"]
    text = call("doctor").out
    assert max(map(len, text.splitlines())) <= 80
    assert by_name["onnxruntime"]["version"] in text


def test_doctor_without_a_gpu_does_not_load_torch_or_nvidia_libraries():
    script = (
        "import sys\nfrom fcn_deploy.cli.app import run\n"
        "assert run(['doctor']) == 0\n"
        "assert not {'torch', 'tensorrt', 'tensorrt_rtx', 'tensorrt_lean'} & set(sys.modules), sorted(sys.modules)\n"
    )
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=hidden)
    assert result.returncode == 0, result.stderr


def test_doctor_on_a_device_with_nothing_but_the_command_line_says_what_to_install(tmp_path):
    site = Path(importlib.util.find_spec("numpy").origin).parents[1]
    for name in DEPENDENCIES:
        if (site / name).exists():
            (tmp_path / name).symlink_to(site / name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    command = [sys.executable, "-S", "-m", "fcn_deploy", "doctor"]  # -S: no other package is to be found

    def run(*arguments):
        result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    facts = json.loads(run("--json"))
    assert facts["libraries"]
    for library in facts["libraries"]:
        assert library["problem"] == "not installed", library
        assert library["fix"].startswith(("pip install ", "install the packages ")), library
        assert not library["builds"] and not library["runs"]  # noqa: PT018
    assert "cuda-bindings is not installed" in facts["nvidia"]["problem"]
    text = run()
    assert all(word in text for word in facts["libraries"][0]["fix"].split())
    assert max(map(len, text.splitlines())) <= 80
