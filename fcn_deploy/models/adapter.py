"""Adapts a custom net to what the other rooms expect: one tensor of logits, of the size of the image, at every size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.errors import InputError

# The attribute that holds the custom net, so the first part of the path of each of its modules.
ROOT = "net"
_LOGITS = "out"


class AdaptedNet(nn.Module):
    """Pads the image for a net, takes the logits from what the net returns, and crops them to the image.

    Args:
        net: float [N, 3, H, W] to float [N, C, H, W], or to a mapping that has such a tensor under `out`, as
            torchvision's segmentation nets return; at every H and W, or at multiples of `padding.divisor`.
        padding: How images are padded; None for no padding.
    """

    def __init__(self, net: nn.Module, padding: Padding | None = None) -> None:
        super().__init__()
        self.net = net
        self.padding = padding

    def forward(self, image: Tensor) -> Tensor:
        """Segments a batch.

        Args:
            image: float [N, 3, H, W], normalised, H and W at least 1.

        Returns:
            Logits, float [N, C, H, W].
        """
        if self.padding is None:
            return logits_of(self.net(image))
        height, width = image.shape[2:]
        return logits_of(self.net(_pad(image, self.padding)))[:, :, :height, :width]


def logits_of(output: Any) -> Tensor:
    """Returns the logits from what a net returns: a tensor, or a mapping with a tensor under `out`.

    Raises:
        InputError: It is neither.
    """
    found = output.get(_LOGITS) if isinstance(output, Mapping) else output
    if isinstance(found, Tensor):
        return found
    keys = f"{type(output).__name__} of {', '.join(map(str, output))}" if isinstance(output, Mapping) else None
    raise InputError(
        "the net returns no logits",
        got=keys or f"a {type(output).__name__}",
        expected=f"a tensor [N, C, H, W], or a dict with such a tensor under '{_LOGITS}'",
        fix="wrap the net in a module that returns its logits",
    )


def _pad(image: Tensor, padding: Padding) -> Tensor:
    height, width = image.shape[2:]
    rows, columns = padding.padded(height), padding.padded(width)
    if padding.mode == "reflect":
        return image.index_select(2, _mirrored(height, rows)).index_select(3, _mirrored(width, columns))
    mode = {"edge": "replicate", "zero": "constant"}[padding.mode]
    return F.pad(image, (0, columns - width, 0, rows - height), mode=mode)


def _mirrored(size: int, padded: int) -> Tensor:
    """Indices 0, 1, ..., size - 1, size - 2, ..., 0, 1, ... of length `padded`: numpy's `reflect`, int64 [padded]."""
    # torch's own reflection cannot pad by more than the image holds.
    period = torch.full((1,), 2 * size - 2).clamp(min=1)
    places = torch.remainder(torch.arange(padded), period)
    return torch.minimum(places, period - places)
