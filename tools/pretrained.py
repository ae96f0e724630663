"""Copies weights into a net before training: from torchvision's VGG16, an ImageNet classifier, or from a trained FCN.

The classifier's fully connected layers become convolutions, and finer nets start from coarser ones, as in sections 3.1
and 4.2 of https://arxiv.org/abs/1411.4038.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fcn_deploy.errors import InputError
from fcn_deploy.models.checkpoint import Checkpoint, read_tensors
from fcn_deploy.models.fcn import FCN
from fcn_deploy.models.layouts import dense_name
from fcn_deploy.models.vgg import TRUNK

# Where the thirteen convolutions stand among torchvision's layers of `features`.
_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def load_vgg16(model: FCN, path: Path) -> list[str]:
    """Copies the layers of torchvision's `vgg16` into a net of width 1; its score layers and deconvolutions stay.

    Args:
        model: The net, changed in place. fc7 is always copied, fc6 if the net's is 7x7.
        path: A `.pth` or `.safetensors` state_dict of `torchvision.models.vgg16`.

    Returns:
        The names of the layers that were copied.

    Raises:
        InputError: The file does not hold such a state_dict, or the net has another width.
    """
    tensors, _ = read_tensors(path)
    sources = {f"{name}.0": f"features.{index}" for name, index in zip(TRUNK, _FEATURES, strict=True)}
    dense = ".0" if model.stride == 32 else ""
    sources[f"fc7{dense}"] = "classifier.3"
    if model.geometry.fc6_kernel == 7:
        sources[f"fc6{dense}"] = "classifier.0"
    for target, source in sources.items():
        _copy(model, target, tensors, source, path)
    return sorted(target.removesuffix(".0") for target in sources)


def _copy(model: FCN, target: str, tensors: Mapping[str, Tensor], source: str, path: Path) -> None:
    for kind in ("weight", "bias"):
        parameter = model.get_parameter(f"{target}.{kind}")
        found = tensors.get(f"{source}.{kind}")
        if found is None or found.numel() != parameter.numel():
            raise InputError(
                f"{path} does not fit the net's {target}",
                got=f"{source}.{kind} {'missing' if found is None else list(found.shape)}",
                expected=f"torchvision's vgg16 and a net of width 1, whose {target}.{kind} is {list(parameter.shape)}",
            )
        parameter.data.copy_(found.reshape(parameter.shape))


def load_matching(model: FCN, checkpoint: Checkpoint) -> list[str]:
    """Copies the layers that have the same name and shape in a trained net and a new one, no others.

    An FCN-8s takes all layers of an FCN-16s except the last deconvolution. A net with other classes takes the trunk,
    fc6 and fc7.

    Args:
        model: The net, changed in place.
        checkpoint: The trained net, of any stride and number of classes.

    Returns:
        The names of the layers that were copied.

    Raises:
        InputError: The trunks have other shapes.
    """
    found = {dense_name(key, model.stride): tensor for key, tensor in checkpoint.state.items()}
    copied = []
    for name, layer in model.named_modules():
        own = {f"{name}.{kind}": parameter for kind, parameter in layer.named_parameters(recurse=False)}
        # Weights and bias of a layer are copied together or not at all.
        if own and all(key in found and found[key].shape == own[key].shape for key in own):
            for key, parameter in own.items():
                parameter.data.copy_(found[key])
            copied.append(name.removesuffix(".0"))
    missing = [name for name in TRUNK if name not in copied]
    if missing:
        raise InputError(
            "the checkpoint's trunk does not fit the net",
            got=f"width {checkpoint.width:g}",
            expected=f"width {model.width:g}; other shapes: {', '.join(missing)}",
        )
    return sorted(copied)
