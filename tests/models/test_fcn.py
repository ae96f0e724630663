import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.models import FCN
from fcn_deploy.models.fcn import VARIANTS, bilinear_kernel


@pytest.mark.parametrize("stride", VARIANTS.values())
@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 100), width=st.integers(1, 100), batch=st.integers(1, 3))
def test_the_output_has_exactly_the_size_of_the_image(make_net, stride, height, width, batch):
    with torch.inference_mode():
        logits = make_net(stride)(torch.rand(batch, 3, height, width))
    assert logits.shape == (batch, 5, height, width)
    assert torch.isfinite(logits).all()


def _seed_forward(net: FCN, x: torch.Tensor) -> torch.Tensor:
    """FCN-8s as its published layer table has it, for sizes that are multiples of 32, where nothing needs cropping."""
    state = net.state_dict()

    def conv(name: str, x: torch.Tensor, padding: int = 0) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def up(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=stride, padding=stride // 2)

    pools = {}
    for block, convs in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)):
        for index in range(1, convs + 1):
            x = F.relu(conv(f"conv{block}_{index}.0", x, padding=1))
        x = pools[block] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = conv("score_fr", F.relu(conv("fc7", F.relu(conv("fc6", x)))))
    x = up("upscore2", x, 2) + conv("score_pool4_fr", pools[4])
    x = up("upscore2_pool4", x, 2) + conv("score_pool3_fr", pools[3])
    return up("upscore8", x, 8)


def test_fcn8s_computes_what_its_layer_table_says(make_net):
    net = make_net(8)
    image = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(net(image), _seed_forward(net, image))


def test_at_other_sizes_the_excess_is_cropped_at_the_bottom_and_the_right(make_net):
    net = make_net(32)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        whole = net(image)
        # 33 rows pool to 2 rows of stride 32, as 64 do; the map is the same size before the last crop.
        assert net(image[:, :, :33, :50]).shape == (1, 5, 33, 50)
        assert whole.shape == (1, 5, 64, 64)
        maps = net.features(image[:, :, :33, :50])
        assert maps[32].shape[2:] == (2, 2)


def test_deconvolutions_start_as_bilinear_interpolation():
    net = FCN(8, 3, 0.0625)
    coarse = torch.randn(1, 3, 5, 6)
    with torch.inference_mode():
        up = net.get_submodule("upscore8")(coarse)
    expected = F.interpolate(coarse, scale_factor=8, mode="bilinear", align_corners=False)
    # At the borders interpolation repeats the edge where a deconvolution sees nothing.
    torch.testing.assert_close(up[:, :, 8:-8, 8:-8], expected[:, :, 8:-8, 8:-8])


def test_new_skips_start_at_zero():
    net = FCN(8, 3, 0.0625)
    assert not net.get_submodule("score_pool4_fr").weight.any()
    assert not net.get_submodule("score_pool3_fr").weight.any()


def test_the_bilinear_kernel_is_diagonal_and_sums_to_the_stride_squared():
    kernel = bilinear_kernel(3, 4).numpy()
    assert kernel.shape == (3, 3, 4, 4)
    np.testing.assert_array_equal(kernel[0, 1], 0)
    assert kernel[0, 0].sum() == pytest.approx(4)


@pytest.mark.parametrize(("stride", "fc6"), [(32, "fc6.0.weight"), (16, "fc6.weight"), (8, "fc6.weight")])
def test_keys_are_those_of_published_checkpoints(stride, fc6):
    keys = FCN(stride, 2, 0.0625).state_dict().keys()
    assert {"conv1_1.0.weight", "conv5_3.0.bias", fc6, "score_fr.weight", f"upscore{stride}.weight"} <= keys
    assert ("score_pool4_fr.weight" in keys) == (stride <= 16)
    assert ("score_pool3_fr.weight" in keys) == (stride == 8)


def test_at_full_width_there_are_as_many_parameters_as_the_layer_table_has():
    trunk = sum(9 * i * o + o for i, o in [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256)])
    trunk += sum(9 * i * o + o for i, o in [(256, 256)] * 2 + [(256, 512)] + [(512, 512)] * 5)
    head = 512 * 4096 + 4096 + 4096 * 4096 + 4096
    scores = sum(channels * 21 + 21 for channels in (4096, 512, 256))
    upscores = sum(21 * 21 * kernel**2 + 21 for kernel in (4, 4, 16))
    assert sum(p.numel() for p in FCN(8, 21).parameters()) == trunk + head + scores + upscores == 33_826_526
