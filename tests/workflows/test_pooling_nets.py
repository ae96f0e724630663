"""Nets whose pooling depends on the size of the map go to INT8 engines that label images of a real size."""

import numpy as np
import pytest
import torch
from PIL import Image

from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.verifying import verify
from tests.support import custom_nets


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number, size in enumerate([(480, 360), (480, 360), (320, 240)]):
        blobs = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size)
        blobs.save(folder / f"{number}.png")
    return folder


def _balanced(net):
    """Moves the logits of a random net so that each class is the label of some pixels."""
    image = torch.nn.functional.interpolate(torch.randn(1, 3, 9, 12), (360, 480), mode="bilinear")
    with torch.no_grad():
        net.score.bias -= net(image).mean((0, 2, 3))
    return net


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "padding"),
    [(custom_nets.PyramidPooling, {}), (custom_nets.WidePools, {}), (custom_nets.PoolBySize, {"size_divisor": 8})],
    ids=["adaptive", "wide", "by size, padded"],
)
def test_engines_of_nets_that_pool_label_images_of_a_real_size_as_pytorch_does(tmp_path, images, kind, padding):
    weights, name = tmp_path / "w.pth", f"tests.support.custom_nets:{kind.__name__}"
    torch.save(_balanced(custom_nets.trained(kind())).state_dict(), weights)
    model = export(weights, model=name, **padding)
    assert model.error is not None
    assert model.error <= 1e-5
    assert model.spec.receptive_field is None or kind is custom_nets.WidePools
    for precision in ("fp32", "int8"):
        calibration = {"calib_data": images} if precision == "int8" else {}
        engine = build_engine(model, precision=precision, **calibration)
        assert verify(engine, data=images, weights=weights, model=name, gate="agreement>=97%").passed
