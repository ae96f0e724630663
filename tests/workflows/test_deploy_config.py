"""What `deploy` refuses before any work, and what it builds."""

import pytest

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.gates import GateOption
from fcn_deploy.workflows import deploy_config
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


@pytest.mark.parametrize(
    ("asked", "precisions"),
    [
        ({"int8": False}, ("fp32",)),
        ({}, ("fp32", "int8")),
        ({"bf16": True}, ("fp32", "bf16", "int8")),
        ({"int8": False, "bf16": True}, ("fp32", "bf16")),
    ],
)
def test_fp32_is_built_first_and_int8_last(config, monkeypatch, asked, precisions):
    monkeypatch.setattr(deploy_config, "check_openvino", lambda *arguments: None)
    monkeypatch.setattr(deploy_config, "exact_8_bits", lambda: True)
    assert config(backend="openvino", **asked).precisions == precisions


def test_a_speedup_is_required_of_int8(config):
    assert config(require_speedup=1.2).require_speedup == 1.2
    with pytest.raises(UsageError, match="required of INT8; got `require_speedup` without INT8; fix: add `int8=True`"):
        config(int8=False, require_speedup=1.2)
    with pytest.raises(UsageError, match="bad `require_speedup`; got -1"):
        config(require_speedup=-1)


def test_bf16_is_for_openvino(config):
    with pytest.raises(UsageError, match="onnxruntime builds no engines in BF16"):
        config(bf16=True)


def test_an_unknown_backend_is_refused(config):
    with pytest.raises(UsageError, match="no such `backend`; got 'tensorrt-lean'; expected onnxruntime or openvino or"):
        config(backend="tensorrt-lean")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_for_a_gpu_fp16_is_built_first_and_calibration_is_always_needed(config, backend):
    """To know what FP16 cannot hold; the library and the GPU need not be here."""
    assert (config(backend=backend).precisions, config(backend=backend).calibrates) == (("fp16", "int8"), True)
    only_fp16 = config(int8=False, backend=backend)
    assert (only_fp16.precisions, only_fp16.calibrates) == (("fp16",), True)
    assert not config(int8=False).calibrates


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bf16": True}, "builds FP16 and INT8 for tensorrt; got `bf16`"),
        ({"target_cpu": "vnni"}, 'got `target_cpu="vnni"`'),
        ({"require_speedup": 1.2}, "the faster engine is shipped in any case"),
        ({"profiles": (ImageProfile(*[ImageShape(2, 8, 8)] * 3),)}, "one image at a time; got `min_shape` 2x8x8"),
        ({"gates": (GateOption.parse("fp32:agreement>=99%"),)}, "expected fp16 or int8"),
    ],
)
def test_what_is_not_for_gpus_is_refused(config, options, message):
    with pytest.raises(UsageError, match=message):
        config(backend="tensorrt", **options)


@pytest.mark.parametrize("options", [{"bundle": True}, {"profiles": (ImageProfile(*[ImageShape(1, 8, 8)] * 3),)}])
def test_bundles_and_profiles_are_for_gpus(config, options):
    with pytest.raises(UsageError, match="bundles and profiles are for TensorRT engines"):
        config(**options)
