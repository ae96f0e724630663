import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fcn_deploy.artifacts.geometry import PAPER, Geometry
from fcn_deploy.errors import InputError
from fcn_deploy.models import FCN, read_checkpoint
from fcn_deploy.models.vgg import TRUNK
from pretrained import load_matching, load_vgg16

LAYERS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def _vgg16() -> nn.Module:
    """torchvision's vgg16 as its published table has it, with random weights and its own key names."""
    features, inputs = [], 3
    for layer in LAYERS:
        if layer == "M":
            features.append(nn.MaxPool2d(2))
        else:
            features += [nn.Conv2d(inputs, int(layer), 3, padding=1), nn.ReLU()]
            inputs = int(layer)
    net = nn.Module()
    net.features = nn.Sequential(*features)
    net.classifier = nn.Sequential(nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096))
    return net.eval()


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory):
    torch.manual_seed(0)
    net = _vgg16()
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(net.state_dict(), path)
    return net, path


@pytest.mark.slow
@pytest.mark.parametrize("stride", [32, 8])
def test_fc7_of_a_net_from_vgg16_computes_what_the_classifier_computes(vgg16, stride):
    classifier, path = vgg16
    net = FCN(stride, 3, geometry=Geometry(fc6_kernel=7)).eval()
    assert len(load_vgg16(net, path)) == 15
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = classifier.classifier(classifier.features(image).flatten(1))
        pool5 = net.features(image)[32]
        # Without padding a 7x7 convolution over the 7x7 map is the fully connected layer.
        fc6, fc7 = (layer[0] if stride == 32 else layer for layer in (net.fc6, net.fc7))
        found = fc7(F.relu(F.conv2d(pool5, fc6.weight, fc6.bias)))
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-3, atol=1e-4)


def test_vgg16_weights_for_another_width_or_from_another_file_are_refused(vgg16, tmp_path):
    with pytest.raises(InputError, match="a net of width 1"):
        load_vgg16(FCN(8, 3, 0.0625, PAPER), vgg16[1])
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="torchvision's vgg16"):
        load_vgg16(FCN(8, 3, 0.0625), tmp_path / "other.pth")


def _checkpoint(net, path):
    torch.save(net.state_dict(), path)
    return read_checkpoint(path)


@pytest.mark.parametrize(
    ("coarse", "fine", "fresh"),
    [
        (32, 16, {"score_pool4_fr", "upscore2", "upscore16"}),
        (16, 8, {"score_pool3_fr", "upscore2_pool4", "upscore8"}),
        (8, 32, {"upscore32"}),
        (8, 8, set()),
    ],
)
def test_a_net_takes_the_layers_it_shares_with_a_trained_net(make_net, tmp_path, coarse, fine, fresh):
    checkpoint = _checkpoint(make_net(coarse), tmp_path / "coarse.pth")
    net = FCN(fine, 5, 0.0625)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    copied = load_matching(net, checkpoint)
    after = net.state_dict()
    assert after
    layers = {key.rpartition(".")[0].removesuffix(".0") for key in after}
    assert set(copied) == layers - fresh
    for key, tensor in after.items():
        layer = key.rpartition(".")[0].removesuffix(".0")
        assert torch.equal(tensor, before[key]) is (layer in fresh), key


def test_a_net_with_other_classes_takes_all_layers_except_scores_and_deconvolutions(make_net, tmp_path):
    checkpoint = _checkpoint(make_net(8, classes=5), tmp_path / "five.pth")
    assert load_matching(FCN(8, 3, 0.0625), checkpoint) == sorted((*TRUNK, "fc6", "fc7"))


def test_a_net_with_another_trunk_is_refused(make_net, tmp_path):
    checkpoint = _checkpoint(make_net(8), tmp_path / "narrow.pth")
    with pytest.raises(InputError, match=r"trunk does not fit the net; got width 0\.0625; expected width 0\.125"):
        load_matching(FCN(8, 5, 0.125), checkpoint)
