"""Two-class nets whose right answer is known: red is class 1, blue is class 0; and images and masks for them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

CLASSES = ("background", "object")


class RedOrBlue(nn.Module):
    """Says whether a pixel is more red than blue, from the difference of the channels; two layers for INT8."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(torch.relu(self.features(x)))


class OneLabel(RedOrBlue):
    """Gives class 0 everywhere, whatever it sees."""

    def forward(self, x):
        y = super().forward(x)
        return torch.cat([y[:, :1].abs() + 1, -y[:, 1:].abs()], 1)


def save_weights(path):
    """Writes the weights, which are right for red and blue in RGB, and returns the path."""
    net = RedOrBlue()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        for index in range(8):  # red, then blue, at several strengths
            net.features.weight[index, 0 if index < 4 else 2, 1, 1] = 1 + 0.1 * (index % 4)
        net.head.weight[0, 4:], net.head.weight[1, :4] = 1, 1
    torch.save(net.state_dict(), path)
    return path


def write_scenes(folder, count=6, size=(24, 36), objects=0.4):
    """Writes images of blue with red rectangles, and what they show, 0 or 1, in masks of several forms.

    Folders: `images`, `labels` (0 and 1), `masks` (0 and 255), `ignored` (255 everywhere), `mostly` (255 on two
    thirds).
    """
    for name in ("images", "labels", "masks", "ignored", "mostly"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(1)
    for index in range(count):
        truth = np.zeros(size, np.uint8)
        truth[: int(size[0] * 0.9), 2 : 2 + int(size[1] * objects) + index % 3] = 1
        noise = random.integers(0, 40, (*size, 3))
        image = np.where(truth[..., np.newaxis] == 1, (220, 20, 20), (20, 20, 220)) - noise + 20
        mostly = truth.copy()
        mostly[:, size[1] // 6 :][:, : -size[1] // 6] = 255
        for name, pixels in (
            ("images", image.astype(np.uint8)),
            ("labels", truth),
            ("masks", truth * 255),
            ("ignored", np.full(size, 255, np.uint8)),
            ("mostly", mostly),
        ):
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder
