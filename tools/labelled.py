"""Labelled images on disk, and the random crops of them that a net is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import read_image
from fcn_deploy.data.labels import read_labels
from fcn_deploy.data.pairing import find_labels
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.image import normalize
from training import shuffled


@dataclass(frozen=True)
class Labelled:
    """Images and their labels, read when asked for: a data set need not fit into memory.

    Attributes:
        images: Files of images.
        labels: Files of their labels, in the same order.
        palette: A colour for each class, by which colour masks are read.
        ignore_index: The label that stands for "not labelled".
    """

    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    palette: tuple[Rgb, ...]
    ignore_index: int

    @classmethod
    def match(cls, images: Sequence[Path], labels: Path, palette: tuple[Rgb, ...], ignore_index: int) -> Labelled:
        """Finds the labels of images in a folder, by name.

        Raises:
            InputError: There is no such folder, or an image has no labels.
        """
        return cls(tuple(images), find_labels(images, labels), palette, ignore_index)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.palette)

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Returns an image, uint8 [H, W, 3] in RGB, and its labels, int32 [H, W].

        Raises:
            InputError: A file cannot be read, or the two differ in size.
        """
        image = read_image(self.images[index])
        truth = read_labels(self.labels[index], self.palette, self.ignore_index)
        if truth.shape != image.shape[:2]:
            raise InputError(
                f"{self.labels[index]} does not fit its image",
                got="{}x{}".format(*truth.shape),
                expected="{}x{}".format(*image.shape[:2]),
            )
        return image, truth

    def count_pixels(self, what: str, progress: Progress) -> NDArray[np.int64]:
        """Reads everything once, so that no file fails in the middle of training, and counts.

        Args:
            what: Said beside the progress bar.
            progress: Told of each image.

        Returns:
            int64 [C], how many pixels are of each class.

        Raises:
            InputError: A file does not fit, a label is no class, or nothing is labelled.
        """
        counts = np.zeros(self.num_classes, np.int64)
        for index in progress.track(range(len(self)), len(self), what):
            _, truth = self.read(index)
            values, pixels = np.unique(truth[truth != self.ignore_index], return_counts=True)
            strange = [value for value in values.tolist() if not 0 <= value < self.num_classes]
            if strange:
                raise InputError(
                    f"{self.labels[index]} holds values that are no class",
                    got=strange,
                    expected=f"0..{self.num_classes - 1}, or {self.ignore_index} for 'not labelled'",
                    fix="name each class in --class-names, and the value that means 'not labelled' with --ignore-index",
                )
            counts[values] += pixels
        if not counts.any():
            raise InputError(f"{self.labels[0].parent}: nothing is labelled", got=f"nothing but {self.ignore_index}")
        return counts


def split(
    images: Path, labels: Path, val_images: Path | None, val_labels: Path | None, palette: tuple[Rgb, ...],
    ignore_index: int,
) -> tuple[Labelled, Labelled]:  # fmt: skip
    """Opens the images to train on and those held out: a folder of their own, or every fifth image.

    Raises:
        InputError: A folder cannot be read, an image has no labels or is in both folders, or there are too few to
            hold one out.
        UsageError: One of the two held-out folders is named and the other is not.
    """
    if (val_images is None) != (val_labels is None):
        raise UsageError("held-out images go with their labels", expected="--val-images and --val-labels, or neither")
    folder = ImageFolder.open(images)
    if val_images is not None and val_labels is not None:
        held_out = ImageFolder.open(val_images)
    elif len(folder) < 5:
        raise InputError(
            "too few images to hold one out",
            got=len(folder),
            expected="5 or more",
            fix="add images, or name others with --val-images and --val-labels",
        )
    else:
        folder, held_out = folder.every_fifth()
    both = {path.resolve() for path in folder.paths} & {path.resolve() for path in held_out.paths}
    if both:
        raise InputError(
            "held-out images are also trained on",
            got=f"{min(both).name} and {len(both) - 1} more",
            expected="other images for --val-images",
        )
    return (
        Labelled.match(folder.paths, labels, palette, ignore_index),
        Labelled.match(held_out.paths, val_labels or labels, palette, ignore_index),
    )


class Crops(Dataset[tuple[NDArray[np.float32], NDArray[np.int64]]]):
    """The crops of a whole run in their order; each depends on its place alone, whichever process reads it.

    Args:
        source: What is cropped; each image comes once an epoch.
        count: Crops in all.
        size: Height and width of each; an image that is smaller is continued by its edge, and not labelled there.
        normalization: Of the net.
        seed: Of the order, the windows and the mirroring.
    """

    def __init__(
        self, source: Labelled, count: int, size: tuple[int, int], normalization: Normalization, seed: int
    ) -> None:
        self._source = source
        self._count = count
        self._size = size
        self._normalization = normalization
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Returns a normalised crop, float32 [3, h, w], mirrored or not, and its labels, int64 [h, w]."""
        height, width = self._size
        rng = np.random.default_rng((self._seed, place))
        image, truth = self._source.read(shuffled(place, len(self._source), self._seed))
        edges = [(0, max(0, height - truth.shape[0])), (0, max(0, width - truth.shape[1]))]
        image = np.pad(image, [*edges, (0, 0)], mode="edge")
        truth = np.pad(truth, edges, constant_values=self._source.ignore_index)
        top = rng.integers(truth.shape[0] - height + 1)
        left = rng.integers(truth.shape[1] - width + 1)
        window = np.s_[top : top + height, left : left + width]
        flip = np.s_[:, :: rng.choice((1, -1))]
        return normalize(image[window][flip][np.newaxis], self._normalization)[0], truth[window][flip].astype(np.int64)
