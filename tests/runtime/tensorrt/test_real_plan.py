"""A real plan on a machine without a driver: what TensorRT-RTX has built here is not even offered to it."""

import json
import subprocess
import sys
from textwrap import dedent

import pytest

from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.log import library_log
from tests.support import tiny_plans

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
    assert modules == ["fcn_deploy.runtime.tensorrt.backend"] or modules == []


def test_the_real_library_gives_its_reasons_to_our_log():
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    log = library_log(trt)
    assert library_log(trt) is log
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert builder.build_serialized_network(network, builder.create_builder_config()) is None
    assert "network" in log.take_errors().lower()
    assert log.take_errors() == "no reason given"


def test_the_real_libraries_have_what_the_runtime_calls():
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    calls = {
        trt.Runtime: "engine_host_code_allowed deserialize_cuda_engine",
        trt.ICudaEngine: "num_io_tensors num_optimization_profiles device_memory_size_v2 "
        "get_tensor_name get_tensor_mode "
        "get_tensor_dtype get_tensor_shape get_tensor_format_desc get_tensor_location get_tensor_profile_shape "
        "create_execution_context create_runtime_config",
        trt.IExecutionContext: "set_device_memory set_input_shape set_optimization_profile_async set_tensor_address "
        "get_tensor_shape execute_async_v3",
        trt.IRuntimeConfig: "cuda_graph_strategy dynamic_shapes_kernel_specialization_strategy create_runtime_cache "
        "set_runtime_cache",
        trt.IRuntimeCache: "deserialize serialize",
        core.Device: "set_current create_stream allocate",
        core.LegacyPinnedMemoryResource: "allocate",
        core.graph.GraphBuilder: "begin_building end_building complete close",
        core.graph.Graph: "launch close",
        core.utils.StridedMemoryView: "from_any_interface",
        driver: "cuCtxGetCurrent cuCtxSetCurrent cuMemcpyHtoDAsync cuMemcpyDtoHAsync",
    }
    missing = [
        f"{owner}.{name}" for owner, names in calls.items() for name in names.split() if not hasattr(owner, name)
    ]
    assert missing == []
