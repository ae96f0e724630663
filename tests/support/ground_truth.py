"""Ground truth in the forms in which people have it, and a net that is perfect on its images."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

# Black, red and green: the first three of the PASCAL VOC colour map, too.
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
NORMALIZATION = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 1 / 255}


class Perfect(nn.Module):
    """Labels pixels of COLOURS with the index of their colour."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.channels = nn.Conv2d(3, 4, 3, padding=1)
        self.score = nn.Conv2d(4, classes, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for channel in range(classes - 1):
                self.channels.weight[channel, channel, 1, 1] = 1
                self.score.weight[channel + 1, channel] = 1
            self.score.bias[0] = 0.1

    def forward(self, x):
        return self.score(F.relu(self.channels(x)))


class PerfectBinary(Perfect):
    """Red is the object, everything else is the background."""

    def __init__(self) -> None:
        super().__init__(2)


def blocks(count: int = 6) -> dict[str, np.ndarray]:
    """Returns the truth of images by name, uint8 [48, 64], in 0..2, each class in each."""
    random = np.random.default_rng(0)
    small = [random.permutation(np.arange(48) % 3).reshape(6, 8) for _ in range(count)]
    return {f"f{index}": np.kron(each, np.ones((8, 8), int)).astype(np.uint8) for index, each in enumerate(small)}


def palette_image(truth, order, colours=COLOURS):
    """Returns a palette image of `truth` whose palette has the classes in another order."""
    image = Image.fromarray(np.argsort(order)[truth].astype(np.uint8), "P")
    image.putpalette(np.asarray(colours)[order].tobytes())
    return image


def one_bit(mask):
    """Returns a 1-bit image of booleans."""
    return Image.fromarray((mask * 255).astype(np.uint8)).convert("1")


def _stray(truth, stem):
    if stem != "f4":
        return truth
    changed = truth.copy()
    changed[0, 0] = 7
    return changed


def _instances(truth):
    ids = np.arange(truth.size).reshape(truth.shape) % 1000
    return (truth.astype(np.int32) * 1000 + ids).astype(np.uint16)


# How each form is made of the truth of an image and its name.
FORMS = {
    "images": lambda t, _: COLOURS[t],
    "index": lambda t, _: t,
    "colour": lambda t, _: COLOURS[t],
    "palette": lambda t, _: palette_image(t, [0, 1, 2]),
    "palette_reordered": lambda t, _: palette_image(t, [2, 0, 1]),
    "palette_optimised": lambda t, _: Image.fromarray(COLOURS[t]).quantize(8),
    "gif": lambda t, _: Image.fromarray(COLOURS[t]),
    "sixteen_bit": lambda t, _: t.astype(np.uint16),
    "thirty_two_bit": lambda t, _: t.astype(np.int32),
    "binary_0_255": lambda t, _: np.where(t == 1, 255, 0).astype(np.uint8),
    "binary_0_1": lambda t, _: (t == 1).astype(np.uint8),
    "binary_1_bit": lambda t, _: one_bit(t == 1),
    "shifted_by_one": lambda t, _: t + 1,
    "shifted_with_void": lambda t, _: np.where(np.indices(t.shape)[0] < 8, 0, t + 1).astype(np.uint8),
    "one_of_another_size": lambda t, s: t[::2, ::2] if s == "f3" else t,
    "one_stray_value": _stray,
    "instance_ids": lambda t, _: _instances(t),
    "jpeg": lambda t, _: t,
}
_SUFFIXES = {"gif": ".gif", "jpeg": ".jpg", "thirty_two_bit": ".tiff"}


def write(folder, form, *, suffix=""):
    """Writes the truth of `blocks` in one of FORMS.

    Args:
        folder: Where to; made if it does not exist.
        form: One of FORMS.
        suffix: What names have after those of the images.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stem, truth in blocks().items():
        made = FORMS[form](truth, stem)
        image = made if isinstance(made, Image.Image) else Image.fromarray(made)
        image.save(folder / f"{stem}{suffix}{_SUFFIXES.get(form, '.png')}")
    return folder
