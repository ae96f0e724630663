"""The net that training starts from, and which of its layers were copied from a file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from fcn_deploy.artifacts.geometry import Geometry
from fcn_deploy.artifacts.normalization import TORCHVISION, Normalization
from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.models import FCN, read_checkpoint
from fcn_deploy.models.custom import load_strictly, make_net, reason
from fcn_deploy.models.fcn import VARIANTS
from fcn_deploy.models.layouts import layout_normalization
from fcn_deploy.models.vgg import TRUNK
from pretrained import load_matching, load_vgg16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Start:
    """A net before training.

    Attributes:
        model: The net: an FCN, or one of your own that gives logits of the image's size.
        name: What makes a net of your own, `package.module:callable`; None for an FCN.
        copied: Names of the layers whose weights come from a file; the others are fresh.
        normalization: That of the copied layers, with which training continues.
    """

    model: nn.Module
    copied: frozenset[str] = frozenset()
    normalization: Normalization = TORCHVISION
    name: str | None = None

    @classmethod
    def make(
        cls, variant: str, classes: int, width: float | None, fc6_kernel: int | None, vgg16: Path | None,
        weights: Path | None,
    ) -> Start:  # fmt: skip
        """Makes a net.

        Args:
            variant: `fcn32s`, `fcn16s` or `fcn8s`.
            classes: C.
            width: Channel multiplier; None for that of `weights`, or 1 without them.
            fc6_kernel: 1 or 7; None for that of `weights`, or 1 without them.
            vgg16: torchvision's ImageNet weights, or None.
            weights: A trained net of the family, or None.

        Raises:
            InputError: The weights cannot be read or do not fit.
            UsageError: Both `vgg16` and `weights` are given.
        """
        if vgg16 and weights:
            raise UsageError("two files to start from", got="--vgg16 and --weights", expected="one of them, or none")
        stride = VARIANTS[variant]
        if weights is None:
            model = FCN(stride, classes, width or 1.0, Geometry(fc6_kernel=fc6_kernel or 1))
            return cls(model, frozenset(load_vgg16(model, vgg16) if vgg16 else ()))
        checkpoint = read_checkpoint(weights)
        geometry = checkpoint.spec.geometry if checkpoint.spec and checkpoint.spec.geometry else checkpoint.geometry
        geometry = replace(geometry, fc6_kernel=fc6_kernel or geometry.fc6_kernel)
        model = FCN(stride, classes, width or checkpoint.width, geometry)
        copied = load_matching(model, checkpoint)
        known = checkpoint.spec.normalization if checkpoint.spec else layout_normalization(checkpoint.info.layout)
        if known is None:
            _log.warning("%s does not say how its images were normalised; torchvision's values are used", weights)
        # Even if it was assumed for the file, the net is trained with it from here on.
        return cls(model, frozenset(copied), replace(known or TORCHVISION, assumed=False))

    @classmethod
    def custom(cls, name: str, classes: int, weights: Path | None) -> Start:
        """Makes a net of your own.

        Args:
            name: `package.module:callable`; the current folder is searched first.
            classes: C.
            weights: What training goes on from, every tensor of the net and no other; None for weights as they are
                made.

        Raises:
            InputError: The net cannot be made, the weights do not fit, or it gives no logits [N, C, H, W] of the
                image's size.
            UsageError: `name` does not have that form.
        """
        model = make_net(name)
        known = load_strictly(model, weights, name) if weights else None
        _check_logits(model, name, classes)
        copied = {_layer(parameter) for parameter, _ in model.named_parameters()} if weights else ()
        return cls(model, frozenset(copied), known.normalization if known else TORCHVISION, name)

    def spec(self, classes: tuple[str, ...], palette: tuple[Rgb, ...], ignore_index: int) -> ModelSpec:
        """Returns what the trained net's file says of it."""
        stated = {
            "num_classes": len(classes),
            "classes": classes,
            "palette": palette,
            "ignore_index": ignore_index,
            "normalization": self.normalization,
        }
        if isinstance(self.model, FCN):
            model = self.model
            return ModelSpec(
                variant=f"fcn{model.stride}s", stride=model.stride, width=model.width, geometry=model.geometry, **stated
            )
        assert self.name is not None
        variant = self.name.rpartition(":")[2]
        return ModelSpec(variant=variant, stride=None, width=None, geometry=None, model=self.name, **stated)

    def parameters(self, *, copied: bool) -> list[nn.Parameter]:
        """Returns the parameters of the copied layers, or of the fresh ones."""
        return [p for name, p in self.model.named_parameters() if (_layer(name) in self.copied) is copied]

    def trunk(self) -> list[nn.Parameter]:
        """Returns the parameters of the trunk."""
        return [p for name, p in self.model.named_parameters() if _layer(name) in TRUNK]

    @property
    def has_copied_trunk(self) -> bool:
        """Whether all of the trunk was copied."""
        return self.copied.issuperset(TRUNK)

    def __str__(self) -> str:
        fresh = {_layer(name) for name, _ in self.model.named_parameters()} - self.copied
        return f"copied: {_listed(self.copied)}; fresh: {_listed(fresh)}"


def _check_logits(model: nn.Module, name: str, classes: int) -> None:
    image = torch.zeros(1, 3, 64, 96)
    expected = [1, classes, *image.shape[2:]]
    try:
        with torch.no_grad():
            given = model(image)
    except Exception as error:  # the net is code of the user's, and may raise anything
        got = reason(error)
    else:
        got = f"a tensor {list(given.shape)}" if isinstance(given, torch.Tensor) else f"a {type(given).__name__}"
    if got != f"a tensor {expected}":
        raise InputError(
            f"{name} does not give a score for each class and pixel",
            got=f"{got} for an image {list(image.shape)}",
            expected=f"a tensor {expected}",
            fix="let it return the logits alone, resized to the image; or name as many classes as it has",
        )


def _layer(parameter: str) -> str:
    """Returns the layer that a parameter belongs to: `conv1_1` for `conv1_1.0.weight`."""
    return parameter.rpartition(".")[0].removesuffix(".0")


def _listed(layers: frozenset[str] | set[str]) -> str:
    if layers.issuperset(TRUNK):
        layers = layers.difference(TRUNK) | {"the trunk"}
    return ", ".join(sorted(layers)) or "nothing"
