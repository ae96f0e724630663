"""Public segmentation nets, from the libraries of `requirements.txt`, go the whole way to INT8: `make test-nets`."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec

import pytest

# The library, and the option that the tool names if the net is exported without any.
NETS = {
    "fcn_resnet50": ("torchvision", {}),
    "fcn_resnet101": ("torchvision", {}),
    "deeplabv3_resnet50": ("torchvision", {}),
    "deeplabv3_resnet101": ("torchvision", {}),
    "deeplabv3_mobilenet_v3_large": ("torchvision", {}),
    "lraspp_mobilenet_v3_large": ("torchvision", {}),
    "unet": ("segmentation_models_pytorch", {}),
    "fpn": ("segmentation_models_pytorch", {"size_divisor": 32}),
    "pspnet": ("segmentation_models_pytorch", {"size_divisor": 8}),
    "pan": ("segmentation_models_pytorch", {"size_divisor": 128}),
    "deeplabv3plus": ("segmentation_models_pytorch", {"size_divisor": 16}),
    "linknet": ("segmentation_models_pytorch", {"size_divisor": 32}),
    "manet": ("segmentation_models_pytorch", {"size_divisor": 32}),
    "upernet": ("segmentation_models_pytorch", {"size_divisor": 32}),
    "segformer_smp": ("segmentation_models_pytorch", {"size_divisor": 32}),
    "segformer_b0": ("transformers", {"resize_logits": "bilinear"}),
    "mobilevit_deeplabv3": ("transformers", {"resize_logits": "bilinear"}),
    "monai_unet": ("monai", {"size_divisor": 16}),
}
# In dB. Random weights lose far more in INT8 than trained ones, most in deep ResNets; an engine that has gone wrong has
# 0 or less.
LEAST_SQNR = 4


LARGE = ("pan",)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The folder of images of some sizes."""
    from tests.nets import zoo

    made = {}

    def of(sizes):
        if sizes not in made:
            made[sizes] = tmp_path_factory.mktemp("scenes")
            zoo.write_images(made[sizes], sizes)
        return made[sizes]

    return of


def _missing(library):
    # segmentation-models-pytorch imports the other two.
    needed = {"segmentation_models_pytorch": ("torchvision", "timm", "segmentation_models_pytorch")}.get(library)
    return [name for name in needed or (library,) if find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the libraries; none of them may reach a terminal
@pytest.mark.parametrize("name", NETS)
def test_a_public_net_goes_the_whole_way_with_at_most_the_option_that_the_tool_names(
    name, images, tmp_path, capfd, record_property
):
    library, needed = NETS[name]
    if _missing(library):
        pytest.skip(f"no {' and no '.join(_missing(library))}; `make test-nets` installs what public nets need")
    import torch

    from tests.nets import makers, zoo

    torch.manual_seed(0)
    weights = tmp_path / f"{name}.pth"
    sizes = zoo.LARGE if name in LARGE else zoo.SIZES
    zoo.write_checkpoint(getattr(makers, name)(), weights, sizes)
    capfd.readouterr()
    outcome = zoo.whole_way(weights, f"tests.nets.makers:{name}", images(sizes), sizes)
    record_property("outcome", {"library": library, **asdict(outcome)})
    assert outcome.named == needed
    assert outcome.export_error <= 1e-4
    assert outcome.error <= 1e-4
    assert outcome.agreement >= 0.9999
    assert outcome.int8_convolutions > 0
    assert min(outcome.sqnr) >= LEAST_SQNR
    out, err = capfd.readouterr()
    assert out == err == ""
