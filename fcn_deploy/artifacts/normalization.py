"""Normalisation: from pixels in 0..255 to the input of a net."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fcn_deploy.artifacts.json import require
from fcn_deploy.errors import InputError

Color = Literal["RGB", "BGR"]
Triple = tuple[float, float, float]
Preset = Literal["imagenet", "caffe", "zero-one", "minus-one-one"]


def _triple(values: object, what: str) -> Triple:
    try:
        first, second, third = (float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InputError(what, got=repr(values), expected="three numbers") from None
    return first, second, third


@dataclass(frozen=True)
class Normalization:
    """`(x * scale - mean) / std` for x in 0..255, in the net's channel order.

    Attributes:
        color: The channel order the net was trained on.
        scale: Factor applied to the 0..255 values.
        mean: Per channel, in the net's order, after scaling.
        std: Per channel, in the net's order, positive.
        assumed: Whether these values are a default, because the user stated none.

    Raises:
        InputError: A value is bad.
    """

    color: Color = "RGB"
    scale: float = 1 / 255
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    assumed: bool = False

    def __post_init__(self) -> None:
        require(self.color in ("RGB", "BGR"), "normalization color", self.color, "RGB or BGR")
        require(math.isfinite(self.scale) and self.scale > 0, "normalization scale", self.scale, "a positive number")
        require(all(map(math.isfinite, self.mean)), "normalization mean", self.mean, "three finite numbers")
        require(
            all(math.isfinite(s) and s > 0 for s in self.std),
            "normalization std",
            self.std,
            "three positive numbers",
        )

    def affine(self) -> tuple[Triple, Triple]:
        """Returns `(a, b)`, per channel, such that `x * a + b` is `(x * scale - mean) / std`."""
        a = [self.scale / std for std in self.std]
        b = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        return _triple(a, "scale"), _triple(b, "shift")

    def net_range(self) -> tuple[float, float]:
        """Returns the smallest and the largest value that the net sees, for pixels 0..255."""
        ends = [
            (pixel * self.scale - mean) / std
            for mean, std in zip(self.mean, self.std, strict=True)
            for pixel in (0, 255)
        ]
        return min(ends), max(ends)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Normalization:
        """Builds it from the `normalization` object of a spec.

        Raises:
            InputError: A key is missing or holds a bad value.
        """
        return cls(
            color=data["color"],
            scale=float(data["scale"]),
            mean=_triple(data["mean"], "normalization mean"),
            std=_triple(data["std"], "normalization std"),
            assumed=bool(data.get("assumed", False)),
        )


# torchvision's ImageNet statistics, for RGB images scaled to 0..1:
# https://docs.pytorch.org/vision/stable/models.html
TORCHVISION = Normalization()

# Of the published Caffe nets: BGR in 0..255, minus the mean of ILSVRC.
CAFFE = Normalization("BGR", 1.0, (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))

PRESETS: Mapping[Preset, Normalization] = {
    "imagenet": TORCHVISION,
    "caffe": CAFFE,
    "zero-one": Normalization("RGB", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "minus-one-one": Normalization("RGB", 1 / 127.5, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
}
