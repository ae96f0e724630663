"""What a build is asked for: validated when it is made."""

import pytest

from fcn_deploy.engines.config import BuildConfig, default_method
from fcn_deploy.errors import UsageError


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "int4"},
        {"io": "video"},
        {"precision": "int8", "method": "magic"},
        {"target_cpu": "arm"},
        {"precision": "int8", "weight_rounding": "up"},
    ],
)
def test_an_unknown_value_is_refused(options):
    with pytest.raises(UsageError, match="unknown"):
        BuildConfig(**options)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "minmax"}, 'calibration is for INT8; got `calib_method="minmax"` with `precision="{}"`'),
        ({"int8_layers": ("conv1_1",)}, 'layers to quantise without INT8; got `precision="{}"`'),
        ({"bias_correction": False}, 'biases are corrected in INT8; got `bias_correction=False` with `precision="{}"`'),
        ({"weight_rounding": "nearest"}, 'weights are rounded in INT8; got `weight_rounding` with `precision="{}"`'),
    ],
)
def test_options_of_int8_are_refused_in_another_precision(precision, options, message):
    with pytest.raises(UsageError) as caught:
        BuildConfig(precision, **options)
    assert str(caught.value).startswith(message.format(precision))
    assert 'add `precision="int8"`' in caught.value.fix
    BuildConfig("int8", **options)


def test_fp8_takes_a_method_and_corrects_biases_and_has_one_rounding():
    assert BuildConfig("fp8", method="percentile", bias_correction=False).quantized
    for options in ({"int8_layers": ("a",)}, {"weight_rounding": "correlated"}):
        with pytest.raises(UsageError, match=r"in INT8|without INT8"):
            BuildConfig("fp8", **options)
    with pytest.raises(UsageError, match="Winograd's algorithm"):
        BuildConfig("fp8", winograd=())


def test_the_range_of_fp8_is_the_largest_value_unless_asked_otherwise():
    assert [default_method(precision) for precision in ("int8", "fp8")] == ["mse", "minmax"]
    assert BuildConfig("fp16", method=default_method("fp16"))


def test_winograd_is_refused_in_fp16():
    with pytest.raises(UsageError, match=r"Winograd's algorithm; got `winograd=False` for `precision=\"fp16\"`"):
        BuildConfig("fp16", winograd=())
    with pytest.raises(UsageError, match="got `winograd` for"):
        BuildConfig("fp16", winograd=("conv1_2",))


def test_as_float_keeps_what_is_not_of_int8():
    options = {"method": "minmax", "int8_layers": ("a",), "bias_correction": False, "weight_rounding": "nearest"}
    config = BuildConfig("int8", "tensor", target_cpu="vnni", winograd=("b",), **options)
    assert config.as_float("fp32") == BuildConfig("fp32", "tensor", target_cpu="vnni", winograd=("b",))
    assert config.as_float("fp16") == BuildConfig("fp16", "tensor", target_cpu="vnni")
