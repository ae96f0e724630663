import pytest
import torch
from torch import nn

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import AdaptedNet
from fcn_deploy.models.probe import probe
from tests.support import custom_nets


def _net(kind, padding=None):
    return AdaptedNet(custom_nets.trained(kind()), padding).eval()


@pytest.mark.parametrize("kind", [custom_nets.ResNetFCN, custom_nets.Depthwise])
def test_a_fully_convolutional_net_passes_and_its_classes_are_counted(kind):
    assert probe(_net(kind)) == custom_nets.CLASSES


def test_a_net_for_multiples_is_refused_with_the_smallest_divisor_that_works():
    with pytest.raises(InputError, match=r"does not work at every size; got for 1 image of 65x97 .*`size_divisor=8`,"):
        probe(_net(custom_nets.UNet))


@pytest.mark.parametrize("divisor", [8, 16, 24])
def test_a_net_for_multiples_passes_with_a_divisor(divisor):
    assert probe(_net(custom_nets.UNet, Padding(divisor))) == custom_nets.CLASSES


def test_a_divisor_that_is_too_small_is_refused_with_one_that_works():
    with pytest.raises(InputError, match=r"does not work at multiples of that.*`size_divisor=8`,"):
        probe(_net(custom_nets.UNet, Padding(4)))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (custom_nets.Fixed, r"raises RuntimeError.*it works at 32x32.*Linear layer.*`shape=\"1x32x32\"`"),
        (custom_nets.Classifier, r"returns float32 \[1, 5\].*one answer per image"),
        (custom_nets.Coarse, r"returns float32 \[1, 5, 17, 25\].*4 times smaller"),
    ],
)
def test_a_net_that_is_not_fully_convolutional_is_told_why(kind, why):
    with pytest.raises(InputError, match=f"the net is not fully convolutional.*{why}"):
        probe(_net(kind))


def test_a_net_for_one_size_passes_at_that_size():
    assert probe(_net(custom_nets.Fixed), ImageShape(2, 32, 32)) == custom_nets.CLASSES
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
    assert probe(AdaptedNet(net)) == 3


def test_a_net_for_one_batch_is_checked_with_that_batch():
    class OneBatch(nn.Module):
        def forward(self, x):
            return x.view(2, 3, 32, 32)

    assert probe(AdaptedNet(OneBatch()), ImageShape(2, 32, 32)) == 3


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
