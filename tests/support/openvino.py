"""OpenVINO in tests: whether it is here, and what its engines are built from."""

import importlib.util

import pytest

from fcn_deploy.runtime import cpu

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed: the extra `openvino` has it"
)
needs_bf16 = pytest.mark.skipif(
    cpu.has_bf16() is False, reason="this CPU has no BF16: what it refuses is tested, what it computes is not"
)
