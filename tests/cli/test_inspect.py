"""`inspect` of the summary of a deployment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.cli.deployment import show_summary

GOLDEN = Path(__file__).parents[1] / "artifacts" / "golden"


@pytest.mark.parametrize("name", ["summary.json", "summary_before_truth.json"])
def test_a_summary_is_the_table_that_deploy_printed(name, call, capsys):
    show_summary(Summary.from_json(json.loads((GOLDEN / name).read_text())), as_json=False)
    printed = capsys.readouterr().out
    assert "quartiles" in printed
    assert call("inspect", GOLDEN / name) == (printed, "")


def test_a_summary_as_json_is_the_file(call):
    said = call("inspect", GOLDEN / "summary.json", "--json")
    assert json.loads(said.out) == {"kind": "summary", **json.loads((GOLDEN / "summary.json").read_text())}


def test_a_summary_is_shown_from_the_file_alone():
    code = (
        "import sys\nfrom fcn_deploy.cli.app import run\nassert run(['inspect', sys.argv[1]]) == 0\n"
        "print([name for name in ('torch', 'onnx', 'onnx_ir', 'onnxruntime') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(GOLDEN / "summary.json")], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip().endswith("[]")
