"""The check on emulated Arm CPUs, without them: its script, its engines on this CPU, and what it makes of labels."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import arm_engines
import arm_run
from fcn_deploy.runtime import onnxruntime
from fcn_deploy.runtime.cpu import exact_8_bits

SCRIPT = Path(arm_engines.__file__).with_name("arm_check.sh")
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def compare(folder, host, **arms):
    for name, labels in {"host": host, **arms}.items():
        np.savez(folder / f"{name}.npz", **labels)
    files = [str(folder / f"{name}.npz") for name in ("host", *arms)]
    return CliRunner().invoke(arm_engines.main, ["compare", *files])


def labels(wrong=0):
    array = np.zeros((10, 10, 100), np.uint8)
    array.flat[:wrong] = 1
    return array


@needs_bash
def test_the_script_is_a_script():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck")
def test_the_script_is_free_of_what_shellcheck_knows():
    subprocess.run(["shellcheck", SCRIPT], check=True)


@needs_bash
@pytest.mark.parametrize("arguments", [("--help",), ("a", "b")])
def test_other_arguments_than_a_folder_are_a_usage_error(arguments, tmp_path):
    found = subprocess.run(["bash", SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, "error: usage: tools/arm_check.sh [FOLDER]\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "allowed"),
    [("fp32 all", 0), ("int8-vnni extended", 0), ("int8-vnni all", 10), ("fp32 extended", 0), ("fp32 fast_math", 100)],
)
def test_one_label_more_than_may_differ_is_exit_3(tmp_path, key, allowed):
    host = {key: labels(), "fp32 all": labels()}
    passed = compare(tmp_path, host, arm=host | {key: labels(allowed)})
    assert passed.exit_code == 0, passed.output
    assert f"{allowed} of 10000 labels differ" in passed.output
    failed = compare(tmp_path, host, good=host, arm=host | {key: labels(allowed + 1)})
    assert failed.exit_code == 3
    assert failed.output.count("FAILED") == 1


def test_labels_that_are_missing_have_not_passed(tmp_path):
    found = compare(tmp_path, {"fp32 all": labels(), "int8-vnni all": labels()}, arm={"fp32 all": labels()})
    assert found.exit_code == 3
    assert "int8-vnni all: no labels: FAILED" in found.output


@pytest.mark.slow
@pytest.mark.skipif(not exact_8_bits(), reason="this CPU has no VNNI")
def test_the_engines_run_here_and_agree_with_themselves(tmp_path):
    result = CliRunner().invoke(arm_engines.main, ["build", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    options = onnxruntime.ort.SessionOptions
    try:
        arm_run.main(tmp_path, tmp_path / "host.npz")
    finally:
        onnxruntime.ort.SessionOptions = options
    with np.load(tmp_path / "host.npz") as found:
        assert {key.split()[0] for key in found} == {"fp32", "int8-foreign", "int8-generic", "int8-vnni"}
        assert {key.split()[1] for key in found} >= {"all", "extended"}
        assert len(np.unique(found["int8-foreign all"])) > 3
        for key in ("int8-generic all", "int8-vnni all"):
            assert (found[key] == found["fp32 all"]).mean() > 0.97
    again = CliRunner().invoke(arm_engines.main, ["compare", *[str(tmp_path / "host.npz")] * 2])
    assert again.exit_code == 0
    assert "fp32 all                    0 of 98304 labels differ; bit for bit: passed" in again.output
