"""Adapts a custom net to what the other rooms expect: one tensor of logits, of the size of the image, at every size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.models.outputs import logits_of

# The attribute that holds the custom net, so the first part of the path of each of its modules.
ROOT = "net"


class AdaptedNet(nn.Module):
    """Pads the image for a net, takes the logits from what it returns, and resizes or crops them to the image.

    Args:
        net: float [N, 3, H, W] to float [N, C, H, W], or to something that holds such a tensor (see
            `outputs.logits_of`); from some size on, at every H and W, or at multiples of `padding.divisor`.
        padding: How images are padded; None for no padding.
        outputs: What is taken from what the net returns; None for the logits as they are.
    """

    def __init__(self, net: nn.Module, padding: Padding | None = None, outputs: Outputs | None = None) -> None:
        super().__init__()
        self.net = net
        self.padding = padding
        self.outputs = outputs or Outputs()

    def forward(self, image: Tensor) -> Tensor:
        """Segments a batch.

        Args:
            image: float [N, 3, H, W], normalised, H and W at least 1.

        Returns:
            Logits, float [N, C, H, W].
        """
        if self.padding is None:
            return self._logits(image)
        height, width = image.shape[2:]
        return self._logits(_pad(image, self.padding))[:, :, :height, :width]

    def _logits(self, image: Tensor) -> Tensor:
        logits = logits_of(self.net(image), self.outputs.logits)
        if self.outputs.resize is None:
            return logits
        align = False if self.outputs.resize == "bilinear" else None
        return F.interpolate(logits, image.shape[2:], mode=self.outputs.resize, align_corners=align)


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
