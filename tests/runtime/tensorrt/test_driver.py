"""What the driver and NVIDIA's CUDA packages are asked before a plan is opened."""

import re
import sys

import pytest

from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command
from fcn_deploy.runtime.tensorrt.cuda import Device
from fcn_deploy.runtime.tensorrt.driver import cuda_of_driver, find_gpus, install_cuda_packages


def test_the_driver_says_its_cuda(world):
    assert find_gpus()
    assert cuda_of_driver() == "12.6"


def test_the_real_bindings_can_be_asked_for_the_cuda_of_the_driver():
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    assert re.fullmatch(r"\d+\.\d", cuda_of_driver() or "0.0")


@pytest.mark.parametrize(("cuda", "extra"), [("11.8", "cuda12"), ("12.6", "cuda12"), ("13.0", "cuda13")])
def test_the_packages_to_install_are_for_the_driver_s_cuda(cuda, extra):
    assert install_cuda_packages(cuda) == install_command(extra)


def test_without_a_driver_both_are_named():
    assert install_command("cuda12") in install_cuda_packages()
    assert install_command("cuda13") in install_cuda_packages()


def test_a_cuda_core_without_its_api_is_an_error_that_says_so(world, monkeypatch):
    monkeypatch.delattr(sys.modules["cuda.core"], "Device")  # as in 0.4, where it is in cuda.core.experimental
    with pytest.raises(DependencyError, match=r"cuda-core is too old; expected 0\.5 or newer") as caught:
        Device(0)
    assert caught.value.fix == install_command("cuda12")
    assert caught.value.exit_code == 7


def test_a_cuda_core_with_its_api_is_taken(world):
    assert Device(0).index == 0
