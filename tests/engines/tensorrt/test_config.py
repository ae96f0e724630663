"""Options of TensorRT's builders: values of another type are refused, not taken for true."""

import pytest

from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.errors import UsageError


@pytest.mark.parametrize("option", ["tf32", "hardware_compatibility", "version_compatible"])
@pytest.mark.parametrize("value", ["no", None, 1])
def test_switches_are_true_or_false(option, value):
    with pytest.raises(UsageError, match=f"bad `{option}`; got .*; expected True or False"):
        TensorRTConfig(**{option: value})


@pytest.mark.parametrize("value", ["8.9", (8.9,), ["8.9"], None])
def test_compute_capabilities_are_text(value):
    with pytest.raises(UsageError, match=r"bad `compute_capability`; got .*; expected text"):
        TensorRTConfig(compute_capabilities=value)


@pytest.mark.parametrize("option", ["workspace", "builder_optimization_level"])
@pytest.mark.parametrize("value", ["5", 2.5, True])
def test_numbers_are_integers(option, value):
    with pytest.raises(UsageError, match="bad "):
        TensorRTConfig(**{option: value})
