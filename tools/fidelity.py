"""What the labels of contestants are worth: beside those of the exported model, and beside the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.cli.progress import TerminalProgress
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import stated_size
from fcn_deploy.evaluation.accuracy import confusion_matrix, mean_iou, miou_drop
from fcn_deploy.evaluation.parity import Output, ParityTally
from fcn_deploy.workflows.samples import TruthOptions, samples

# Takes a file with images, uint8 [1, H, W, 3], and returns labels [1, H, W].
Labeller = Callable[[Path], NDArray[Any]]


@dataclass(frozen=True)
class Judge:
    """Images of one size with their ground truth.

    Attributes:
        images: They are run one by one.
        shape: One of them.
        truth: Where the ground truth is.
        spec: Of the net.
    """

    images: ImageFolder
    shape: ImageShape
    truth: TruthOptions
    spec: ModelSpec

    @classmethod
    def open(
        cls, images: Path, labels: Path, spec: ModelSpec, shapes: tuple[ImageShape, ...], max_images: int | None = None
    ) -> Judge:
        """Finds the files; at most so many, evenly spread over the folder.

        Raises:
            InputError: A folder cannot be read, or an image has no labels.
            UsageError: Images differ in size, or none of the shapes to run at is one image of their size.
        """
        folder = ImageFolder.open(images, max_images=max_images)
        sizes = {path: stated_size(path) for path in folder.paths}
        first, *others = dict.fromkeys(sizes.values())
        if first is None or others:
            odd = next(path for path, size in sizes.items() if size is None or size != first)
            raise click.UsageError(f"--fidelity needs images of one size; {odd} has another, or states none")
        expected = ImageShape(1, *first)
        if expected not in shapes:
            raise click.UsageError(f"--fidelity runs whole images, of one size: name it by --shape {expected}")
        truth = TruthOptions.of(labels)
        assert truth is not None
        truth.files(folder)
        return cls(folder, expected, truth, spec)

    def judge(self, labellers: Mapping[str, Labeller], baseline: str, file: Path) -> dict[str, dict[str, Any]]:
        """Runs every contestant over all images.

        Args:
            labellers: By the name of the contestant.
            baseline: The name of the one that the others are compared with.
            file: Where images are put for them.

        Returns:
            By name: `agreement` with the baseline, 0..1, `miou` and `drop` from the baseline's in points, each with the
            ends of its 95% interval.
        """
        reader = self.truth.reader(self.spec)
        tallies = {name: ParityTally() for name in labellers}
        matrices: dict[str, list[NDArray[np.int64]]] = {name: [] for name in labellers}
        for image, truth in samples(self.images, self.truth, "judging", reader, progress=TerminalProgress()):
            assert truth is not None
            np.save(file, image[np.newaxis])
            found = {name: labels(file)[0] for name, labels in labellers.items()}
            for name, labels in found.items():
                tallies[name].add(Output(found[baseline]), Output(labels))
                matrices[name].append(confusion_matrix(truth, labels, self.spec.num_classes, reader.ignore_index))
        rows: dict[str, dict[str, Any]] = {}
        for name, own in matrices.items():
            parity, confusion = tallies[name].result(), np.stack(own)
            drop = miou_drop(np.stack(matrices[baseline]), confusion)
            rows[name] = {
                "images": parity.images,
                "agreement": [parity.agreement, parity.agreement_low, parity.agreement_high],
                "miou": float(mean_iou(confusion.sum(0))),
                "drop": [drop.points, drop.low, drop.high],
            }
        return rows
