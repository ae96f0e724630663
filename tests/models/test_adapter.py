import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.models.adapter import AdaptedNet

NUMPY_MODES = {"edge": "edge", "zero": "constant", "reflect": "reflect"}


class _Spy(nn.Module):
    def forward(self, x):
        self.seen = x
        return x


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(sorted(NUMPY_MODES)),
    divisor=st.integers(2, 12),
    height=st.integers(1, 25),
    width=st.integers(1, 25),
)
def test_images_are_padded_as_numpy_pads_and_logits_cut_back(mode, divisor, height, width):
    spy = _Spy()
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * width))
    logits = AdaptedNet(spy, Padding(divisor, mode))(image)
    margin = ((0, 0), (0, 0), (0, -height % divisor), (0, -width % divisor))
    np.testing.assert_array_equal(spy.seen.numpy(), np.pad(image.numpy(), margin, mode=NUMPY_MODES[mode]))
    assert torch.equal(logits, image)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", [None, Padding(8)])
def test_coarse_logits_are_resized_to_the_image_that_the_net_saw(mode, padding):
    image = torch.rand(2, 3, 13, 22)
    net = nn.AvgPool2d(4, ceil_mode=True)
    seen = AdaptedNet(nn.Identity(), padding)(image) if padding is None else F.pad(image, (0, 2, 0, 3), "replicate")
    align = False if mode == "bilinear" else None
    expected = F.interpolate(net(seen), seen.shape[2:], mode=mode, align_corners=align)[:, :, :13, :22]
    torch.testing.assert_close(AdaptedNet(net, padding, Outputs(resize=mode))(image), expected)


def test_the_logits_that_are_named_are_taken():
    class Heads(nn.Module):
        def forward(self, x):
            return x, (x + 1, x + 2)

    image = torch.ones(1, 3, 4, 4)
    assert torch.equal(AdaptedNet(Heads(), None, Outputs("1.1"))(image), image + 2)
