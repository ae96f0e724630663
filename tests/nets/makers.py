"""Makers of public segmentation nets, one a function, for `--model tests.nets.makers:NAME`.

They are the nets of five libraries as these make them, with random weights: nothing is downloaded. Where a library
offers encoders of several sizes, the nets have a small one.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

CLASSES = 7

# Operators of torchvision's compiled part, which its wheel of PyPI cannot load beside PyTorch's build for CPUs. Kept,
# because a library that is collected takes its operators with it.
_KEPT: list[torch.library.Library] = []


def _torchvision() -> Any:
    """Imports torchvision; if its compiled part cannot be loaded, without the operators that detectors need."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        import torchvision
    return torchvision.models.segmentation


def _of_torchvision(name: str) -> nn.Module:
    return getattr(_torchvision(), name)(weights=None, weights_backbone=None, num_classes=CLASSES)


def fcn_resnet50() -> nn.Module:
    return _of_torchvision("fcn_resnet50")


def fcn_resnet101() -> nn.Module:
    return _of_torchvision("fcn_resnet101")


def deeplabv3_resnet50() -> nn.Module:
    return _of_torchvision("deeplabv3_resnet50")


def deeplabv3_resnet101() -> nn.Module:
    return _of_torchvision("deeplabv3_resnet101")


def deeplabv3_mobilenet_v3_large() -> nn.Module:
    return _of_torchvision("deeplabv3_mobilenet_v3_large")


def lraspp_mobilenet_v3_large() -> nn.Module:
    return _of_torchvision("lraspp_mobilenet_v3_large")


def _of_smp(name: str, encoder: str, **options: Any) -> nn.Module:
    _torchvision()  # which segmentation-models-pytorch imports
    import segmentation_models_pytorch

    return getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None, classes=CLASSES, **options)


def unet() -> nn.Module:
    return _of_smp("Unet", "resnet18")


def fpn() -> nn.Module:
    return _of_smp("FPN", "mobilenet_v2")


def pspnet() -> nn.Module:
    return _of_smp("PSPNet", "resnet18")


def pan() -> nn.Module:
    return _of_smp("PAN", "resnet18")


def deeplabv3plus() -> nn.Module:
    return _of_smp("DeepLabV3Plus", "mobilenet_v2")


def linknet() -> nn.Module:
    return _of_smp("Linknet", "resnet18")


def manet() -> nn.Module:
    return _of_smp("MAnet", "mobilenet_v2")


def upernet() -> nn.Module:
    return _of_smp("UPerNet", "tu-mobilenetv3_small_100")


def segformer_smp() -> nn.Module:
    return _of_smp("Segformer", "mit_b0")


def segformer_b0() -> nn.Module:
    _torchvision()  # which transformers imports if it is there
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES))  # its defaults are those of B0


def mobilevit_deeplabv3() -> nn.Module:
    _torchvision()
    from transformers import MobileViTConfig, MobileViTForSemanticSegmentation

    # MobileViT-XXS, the smallest of the paper's.
    sizes = {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320], "expand_ratio": 2.0}
    return MobileViTForSemanticSegmentation(MobileViTConfig(num_labels=CLASSES, **sizes))


def monai_unet() -> nn.Module:
    _torchvision()  # as transformers does
    from monai.networks.nets import UNet

    return UNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=CLASSES,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
        norm="batch",
    )
