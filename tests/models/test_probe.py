import logging
import re

import pytest
import torch
from torch import nn

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import AdaptedNet
from fcn_deploy.models.probe import Probed, find_padding, probe
from tests.support import custom_nets


def _net(kind, padding=None):
    return AdaptedNet(custom_nets.trained(kind()), padding).eval()


@pytest.mark.parametrize("kind", [custom_nets.ResNetFCN, custom_nets.Depthwise, custom_nets.HidesModules])
def test_a_fully_convolutional_net_passes_and_its_classes_are_counted(kind):
    assert probe(_net(kind)).channels == custom_nets.CLASSES


def test_a_net_for_multiples_is_refused_with_the_smallest_divisor_that_works():
    with pytest.raises(InputError, match=r"does not work at every size; got for 1 image of 65x97 .*`size_divisor=8`,"):
        probe(_net(custom_nets.UNet))


@pytest.mark.parametrize("divisor", [8, 16, 24])
def test_a_net_for_multiples_passes_with_a_divisor(divisor):
    assert probe(_net(custom_nets.UNet, Padding(divisor))).channels == custom_nets.CLASSES


def test_a_divisor_that_is_too_small_is_refused_with_one_that_works():
    with pytest.raises(InputError, match=r"does not work at multiples of that.*`size_divisor=8`,"):
        probe(_net(custom_nets.UNet, Padding(4)))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (custom_nets.Fixed, r"raises RuntimeError.*it works at 32x32.*Linear layer.*`shape=\"1x32x32\"`"),
        (custom_nets.Classifier, r"returns float32 \[1, 5\].*one answer per image"),
    ],
)
def test_a_net_that_is_not_fully_convolutional_is_told_why(kind, why):
    with pytest.raises(InputError, match=f"the net is not fully convolutional.*{why}"):
        probe(_net(kind))


def test_logits_smaller_than_the_image_are_refused_with_what_resizes_them():
    words = r"smaller than the image; got .* returns float32 \[1, 5, 17, 25\].*`resize_logits=\"bilinear\"`"
    with pytest.raises(InputError, match=words):
        probe(_net(custom_nets.Coarse))
    with pytest.raises(InputError, match=r"one score per class and pixel.*`resize_logits=\"bilinear\"`"):
        probe(_net(custom_nets.Coarse), ImageShape(1, 64, 64))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_logits_that_are_resized_pass(mode):
    net = AdaptedNet(custom_nets.Coarse(), None, Outputs(resize=mode)).eval()
    assert probe(net) == Probed(custom_nets.CLASSES, (1, 1))


@pytest.mark.parametrize(("kind", "side"), [(custom_nets.PaddedSkip, 4), (custom_nets.InstanceNorm, 2)])
def test_a_net_with_a_smallest_size_passes_with_it_and_without_a_divisor(kind, side, caplog):
    with caplog.at_level(logging.INFO, "fcn_deploy"):
        assert probe(_net(kind)) == Probed(custom_nets.CLASSES, (side, side))
    assert f"the smallest image that the net takes is {side}x{side}" in caplog.text


def test_a_divisor_that_a_net_does_not_need_is_warned_about_with_what_it_does(caplog):
    assert probe(_net(custom_nets.PaddedSkip, Padding(8))).min_size == (1, 1)
    assert re.search(r"takes every size from 4x4 on without padding.*the same on \d+\.\d\d% of the", caplog.text)


def test_padding_that_a_net_needs_is_not_warned_about(caplog):
    probe(_net(custom_nets.UNet, Padding(8)))
    assert not caplog.records


@pytest.mark.parametrize(
    ("kind", "padding"),
    [
        (custom_nets.UNet, Padding(8, "reflect")),
        (custom_nets.PaddedSkip, None),
        (custom_nets.ResNetFCN, None),
        (custom_nets.Sixths, Padding(6, "reflect")),
    ],
)
def test_the_padding_that_a_net_needs_is_found(kind, padding):
    assert find_padding(_net(kind), "reflect") == padding


def test_a_net_that_no_padding_helps_is_refused_when_it_is_looked_for():
    with pytest.raises(InputError, match="not fully convolutional"):
        find_padding(_net(custom_nets.Classifier), "edge")


def test_a_net_for_one_size_passes_at_that_size():
    assert probe(_net(custom_nets.Fixed), ImageShape(2, 32, 32)).channels == custom_nets.CLASSES
    with pytest.raises(InputError, match="one score per class and pixel"):
        probe(_net(custom_nets.Fixed), ImageShape(1, 33, 32))


def test_a_net_that_mixes_the_images_of_a_batch_is_refused():
    with pytest.raises(InputError, match="mixes the images of a batch"):
        probe(_net(custom_nets.Mixing))


def test_a_net_whose_classes_depend_on_the_size_is_refused():
    class Growing(nn.Module):
        def forward(self, x):
            return x.repeat(1, x.shape[3] % 2 + 1, 1, 1)

    with pytest.raises(InputError, match=r"returns 3 classes, at other sizes 6"):
        probe(AdaptedNet(Growing()))


def test_a_net_that_returns_labels_is_refused():
    class Labels(nn.Module):
        def forward(self, x):
            return x.argmax(1, keepdim=True)

    with pytest.raises(
        InputError,
        match=r"returns labels, not logits; got for 1 image of 65x97 int64 \[1, 1, 65, 97\].*before the argmax",
    ):
        probe(AdaptedNet(Labels()))


def test_a_net_with_its_argmax_inside_is_told_to_return_logits():
    with pytest.raises(InputError, match=r"returns labels, not logits; got .* int64 \[1, 65, 97\].*return the logits"):
        probe(_net(custom_nets.ArgmaxInside))


@pytest.mark.parametrize(("channels", "words"), [(1, "1 channel; got"), (4, "4 channels; got")])
def test_a_net_for_other_images_is_told_how_many_channels_it_takes(channels, words):
    net = AdaptedNet(nn.Conv2d(channels, 5, 3, padding=1)).eval()
    for shape in (None, ImageShape(1, 32, 32)):
        with pytest.raises(InputError, match=f"the net takes images of {words}.*wrap it"):
            probe(net, shape)


def test_a_net_that_needs_another_argument_is_told_which():
    with pytest.raises(InputError, match=r"image alone; got forward\(x, inference\), which needs 'inference' too"):
        probe(_net(custom_nets.ExtraArgument))


@pytest.mark.parametrize("forward", [lambda x, size=None: x, lambda *images: images[0], lambda x, /, **rest: x])
def test_arguments_that_may_be_left_out_do_not_matter(forward):
    net = nn.Identity()
    net.forward = forward
    assert probe(AdaptedNet(net)).channels == 3


def test_a_net_for_one_batch_is_checked_with_that_batch():
    class OneBatch(nn.Module):
        def forward(self, x):
            return x.view(2, 3, 32, 32)

    assert probe(AdaptedNet(OneBatch()), ImageShape(2, 32, 32)).channels == 3


def test_a_net_whose_logits_are_not_finite_is_refused():
    class Infinite(nn.Module):
        def forward(self, x):
            return x / 0

    with pytest.raises(InputError, match="logits that are not finite"):
        probe(AdaptedNet(Infinite()))


def test_a_net_that_exits_is_refused():
    class Leaving(nn.Module):
        def forward(self, x):
            raise SystemExit(0)

    with pytest.raises(InputError, match="raises SystemExit"):
        probe(AdaptedNet(Leaving()))


def test_a_net_that_returns_another_result_each_time_is_refused():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    with pytest.raises(InputError, match="another result each time"):
        probe(AdaptedNet(Noisy()))
