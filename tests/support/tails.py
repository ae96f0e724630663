"""Nets that differ in how their logits come to the size of the image, and in their number of classes."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional


class Tail(nn.Module):
    """A net whose logits are interpolated, or grow by a transposed convolution."""

    def __init__(self, classes, interpolates):
        super().__init__()
        torch.manual_seed(classes)
        self.interpolates = interpolates
        self.body = nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, classes, 1) if interpolates else nn.ConvTranspose2d(8, classes, 4, 2, 1)

    def forward(self, image):
        logits = self.head(torch.relu(self.body(image)))
        return functional.interpolate(logits, image.shape[2:], mode="bilinear") if self.interpolates else logits


interpolated_15 = partial(Tail, 15, True)
interpolated_16 = partial(Tail, 16, True)
grown_15 = partial(Tail, 15, False)
grown_16 = partial(Tail, 16, False)
