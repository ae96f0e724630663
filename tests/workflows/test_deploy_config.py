"""What `deploy` refuses before any work, and what it builds."""

import pytest

from fcn_deploy.errors import UsageError
from fcn_deploy.workflows.deploy_config import DeployConfig


@pytest.fixture
def config():
    def make(int8=True, calib_method=None, io="image", target_cpu=None, has_labels=False, gates=(), **options):
        return DeployConfig(int8, calib_method, io, target_cpu, has_labels, gates, **options)

    return make


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_a_calibration_method_is_for_the_int8_engine_alone(config, method):
    asked = config(calib_method=method)
    assert asked.build_config("int8").method == method
    assert asked.build_config("fp32") == config().build_config("fp32")


def test_a_backend_whose_engines_cannot_be_measured_here_is_refused(config):
    with pytest.raises(UsageError, match="no such `backend`; got 'tensorrt'; expected onnxruntime or openvino"):
        config(backend="tensorrt")
