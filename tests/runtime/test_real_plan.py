"""A real plan on a machine without a driver: what TensorRT-RTX has built here is not even offered to it."""

import json
import subprocess
import sys
from textwrap import dedent

import pytest
import tiny_plans

from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime.driver import find_gpus

OPEN = """
import json, sys
from fcn_deploy.errors import FcnDeployError
from fcn_deploy.runtime import Segmenter
try:
    Segmenter(sys.argv[1])
except FcnDeployError as error:
    print(json.dumps([error.exit_code, str(error), [name for name in sys.modules if "tensorrt_" in name]]))
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return tiny_plans.build(trt, "tensorrt-rtx", tmp_path_factory.mktemp("plans") / "tiny.engine")


def test_without_a_driver_a_plan_is_exit_7(plan):
    try:
        gpus = find_gpus()
    except DependencyError as error:
        words = error.what
    else:
        pytest.skip(f"this machine has a driver and {len(gpus)} GPUs")
    result = subprocess.run(
        [sys.executable, "-c", dedent(OPEN), str(plan)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    code, message, modules = json.loads(result.stdout)
    assert code == 7
    assert message.startswith(words)
    assert modules == ["fcn_deploy.runtime.tensorrt"] or modules == []
