"""This package's CUDA side on a real GPU, behind a stand-in for TensorRT that launches real kernels."""

import pytest

from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime.tensorrt.driver import find_gpus

cuda_checks = pytest.importorskip("cuda_checks", reason="cuda-core is not installed", exc_type=ImportError)

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    try:
        find_gpus()
    except DependencyError as error:
        pytest.skip(str(error))
    with cuda_checks.lab(tmp_path_factory.mktemp("plans"), share=0.1) as place:
        yield place


@pytest.mark.parametrize("name", cuda_checks.CHECKS)
def test_a_check_passes(place, name):
    cuda_checks.run_check(name, place)
