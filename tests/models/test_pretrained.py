import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fcn_deploy.errors import InputError
from fcn_deploy.models import FCN
from fcn_deploy.models.pretrained import load_vgg16
from fcn_deploy.spec import PAPER, Geometry

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
def test_fc7_of_a_224_image_is_the_classifiers(vgg16, stride):
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


def test_another_width_and_another_file_are_refused(vgg16, tmp_path):
    with pytest.raises(InputError, match="a net of width 1"):
        load_vgg16(FCN(8, 3, 0.0625, PAPER), vgg16[1])
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="torchvision's vgg16"):
        load_vgg16(FCN(8, 3, 0.0625), tmp_path / "other.pth")
