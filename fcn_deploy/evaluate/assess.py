"""Runs a reference and several engines over the same images, once each, and says how the engines did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import InputError
from fcn_deploy.evaluate.accuracy import Drop, Matrix, confusion_matrix, miou_drop
from fcn_deploy.evaluate.parity import Parity, ParityTally, run
from fcn_deploy.runtime.segmenter import Segmenter

Sample = tuple[NDArray[np.uint8], NDArray[np.integer[Any]] | None]


@dataclass(frozen=True, eq=False)
class Assessment:
    """How one engine did.

    Attributes:
        parity: Against the reference.
        confusion: int64 [images, C, C] against the ground truth; None where there is none.
        drop: Of mIoU against the reference; None likewise.
    """

    parity: Parity
    confusion: Matrix | None = None
    drop: Drop | None = None


@dataclass(frozen=True, eq=False)
class Assessments:
    """How several engines did on the same images.

    Attributes:
        engines: In the order they were given.
        reference: int64 [images, C, C], the reference against the ground truth; None where there is none.
    """

    engines: tuple[Assessment, ...]
    reference: Matrix | None = None


def confusions(segmenter: Segmenter, samples: Iterable[Sample], ignore_index: int | None) -> Matrix:
    """Compares one engine with the ground truth.

    Args:
        segmenter: What is measured.
        samples: An image, uint8 [H, W, 3], and its truth, integer [H, W].
        ignore_index: Truth that does not count.

    Returns:
        int64 [images, C, C], rows truth, columns labels.

    Raises:
        InputError: There are no samples, one has no truth, or does not fit.
    """
    matrices = []
    for image, truth in samples:
        if truth is None:
            raise InputError("an image without ground truth", expected="labels for each")
        labels = run(segmenter, image).labels
        matrices.append(confusion_matrix(truth, labels, segmenter.spec.num_classes, ignore_index))
    if not matrices:
        raise InputError("no images to evaluate on", expected="at least one")
    return np.stack(matrices)


def assess(
    reference: Segmenter, engines: Sequence[Segmenter], samples: Iterable[Sample], ignore_index: int | None
) -> Assessments:
    """Compares engines with a reference, and all of them with the ground truth where there is any.

    Args:
        reference: Usually PyTorch.
        engines: What is measured.
        samples: An image, uint8 [H, W, 3], and its truth, integer [H, W], or None for all of them.
        ignore_index: Truth that does not count.

    Raises:
        InputError: There are no samples, or one does not fit.
    """
    classes = reference.spec.num_classes
    tallies = [ParityTally() for _ in engines]
    reference_matrices: list[Matrix] = []
    matrices: list[list[Matrix]] = [[] for _ in engines]
    for image, truth in samples:
        expected = run(reference, image)
        if truth is not None:
            reference_matrices.append(confusion_matrix(truth, expected.labels, classes, ignore_index))
        for engine, tally, own in zip(engines, tallies, matrices, strict=True):
            found = run(engine, image)
            tally.add(expected, found)
            if truth is not None:
                own.append(confusion_matrix(truth, found.labels, classes, ignore_index))
    if not reference_matrices:
        return Assessments(tuple(Assessment(tally.result()) for tally in tallies))
    stacked = np.stack(reference_matrices)
    assessments = []
    for tally, own in zip(tallies, matrices, strict=True):
        confusion = np.stack(own)
        assessments.append(Assessment(tally.result(), confusion, miou_drop(stacked, confusion)))
    return Assessments(tuple(assessments), stacked)
