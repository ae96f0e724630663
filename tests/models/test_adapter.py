import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.errors import InputError
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


@pytest.mark.parametrize("output", [{"out": 1.0}, {"logits": torch.zeros(1)}, [torch.zeros(1)], None])
def test_an_output_without_logits_is_refused_with_what_a_net_has_to_return(output):
    class Odd(nn.Module):
        def forward(self, x):
            return output

    with pytest.raises(InputError, match=r"the net returns no logits.*under 'out'"):
        AdaptedNet(Odd())(torch.zeros(1, 3, 4, 4))


def test_the_logits_of_a_dict_are_those_under_out():
    class Heads(nn.Module):
        def forward(self, x):
            return {"aux": x + 1, "out": x}

    image = torch.ones(1, 3, 4, 4)
    assert torch.equal(AdaptedNet(Heads())(image), image)
