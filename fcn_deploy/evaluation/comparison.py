"""Runs a reference and several engines on the same images, each image once, and compares what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.accuracy import Ignored, Matrix, confusion_matrix, miou_drop
from fcn_deploy.evaluation.grouping import grouped
from fcn_deploy.evaluation.parity import ParityTally, run_together
from fcn_deploy.evaluation.truth import TruthTally
from fcn_deploy.runtime.segmenter import Segmenter

Truth = NDArray[np.integer[Any]] | None
Sample = tuple[NDArray[np.uint8], Truth]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One engine, compared with the reference and the ground truth.

    Attributes:
        parity: Against the reference.
        confusion: int64 [images, C, C] against the ground truth, rows truth, columns labels; None without labels.
        drop: Of mIoU against the reference; None without labels.
    """

    parity: Parity
    confusion: Matrix | None = None
    drop: Drop | None = None


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Several engines, compared on the same images.

    Attributes:
        engines: In the order in which they were passed.
        reference: int64 [images, C, C], the reference against the ground truth; None without labels.
        truth: What the ground truth says; None without labels.
    """

    engines: tuple[Comparison, ...]
    reference: Matrix | None = None
    truth: GroundTruth | None = None


@dataclass(frozen=True, eq=False)
class Compared:
    """One image of a comparison.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        truth: Integer [H, W]; None without labels.
        expected: The labels of the reference, integer [H, W].
        found: Those of each engine, in the order in which the engines were passed.
    """

    image: NDArray[np.uint8]
    truth: Truth
    expected: NDArray[np.integer[Any]]
    found: tuple[NDArray[np.integer[Any]], ...]


def confusion_matrices(
    segmenter: Segmenter, samples: Iterable[Sample], ignore_index: Ignored, *, batch: int = 1
) -> tuple[Matrix, GroundTruth]:
    """Compares one engine with the ground truth.

    Args:
        segmenter: The engine.
        samples: Images, uint8 [H, W, 3], each with its truth, integer [H, W].
        ignore_index: The truth of pixels that do not count, one value or several; None if all count.
        batch: At most so many neighbours of equal size run together.

    Returns:
        int64 [images, C, C], rows truth, columns labels; and what the ground truth says.

    Raises:
        InputError: There are no samples, one has no truth or does not fit the engine, or every pixel is ignored.
        UsageError: `batch` is less than one.
    """
    matrices = []
    tally = TruthTally(segmenter.spec.classes, ignore_index)
    for group in grouped(samples, batch, _image):
        for truth, output in zip(_truths(group), run_together(segmenter, _images(group)), strict=True):
            if truth is None:
                raise InputError("an image without ground truth", expected="labels for each image")
            matrices.append(confusion_matrix(truth, output.labels, segmenter.spec.num_classes, ignore_index))
            tally.add(truth, [output.labels])
    if not matrices:
        raise InputError("no images to evaluate on", expected="at least one")
    return np.stack(matrices), tally.result()


def compare(
    reference: Segmenter,
    engines: Sequence[Segmenter],
    samples: Iterable[Sample],
    ignore_index: Ignored,
    *,
    batch: int = 1,
    watch: Callable[[Compared], None] | None = None,
) -> Comparisons:
    """Compares engines with a reference, and all of them with the ground truth if there is any.

    Args:
        reference: What the engines should agree with, usually PyTorch.
        engines: The engines; there may be none.
        samples: Images, uint8 [H, W, 3], each with its truth, integer [H, W]; or all with None.
        ignore_index: The truth of pixels that do not count, one value or several; None if all count.
        batch: At most so many neighbours of equal size run together.
        watch: Told of each image with its labels, in order.

    Raises:
        InputError: There are no samples, one does not fit an engine, or every pixel of the truth is ignored.
        UsageError: `batch` is less than one.
    """
    classes = reference.spec.num_classes
    tallies = [ParityTally() for _ in engines]
    truth_tally = TruthTally(reference.spec.classes, ignore_index)
    reference_matrices: list[Matrix] = []
    matrices: list[list[Matrix]] = [[] for _ in engines]
    for group in grouped(samples, batch, _image):
        images, truths = _images(group), _truths(group)
        expected = run_together(reference, images)
        labels: list[list[NDArray[np.integer[Any]]]] = []
        for truth, wanted in zip(truths, expected, strict=True):
            if truth is not None:
                reference_matrices.append(confusion_matrix(truth, wanted.labels, classes, ignore_index))
                truth_tally.add(truth, [wanted.labels])
        for index, (engine, tally, own) in enumerate(zip(engines, tallies, matrices, strict=True), start=1):
            outputs = run_together(engine, images)
            labels.append([found.labels for found in outputs])
            for truth, wanted, found in zip(truths, expected, outputs, strict=True):
                tally.add(wanted, found)
                if truth is not None:
                    own.append(confusion_matrix(truth, found.labels, classes, ignore_index))
                    truth_tally.add_labels(index, found.labels)
        if watch is not None:
            for place, wanted in enumerate(expected):
                given = tuple(of_engine[place] for of_engine in labels)
                watch(Compared(images[place], truths[place], wanted.labels, given))
    if not reference_matrices:
        return Comparisons(tuple(Comparison(tally.result()) for tally in tallies))
    stacked = np.stack(reference_matrices)
    comparisons = []
    for tally, own in zip(tallies, matrices, strict=True):
        confusion = np.stack(own)
        comparisons.append(Comparison(tally.result(), confusion, miou_drop(stacked, confusion)))
    return Comparisons(tuple(comparisons), stacked, truth_tally.result())


def _image(sample: Sample) -> NDArray[np.uint8]:
    return sample[0]


def _images(group: Sequence[Sample]) -> NDArray[np.uint8]:
    return np.stack([image for image, _ in group])


def _truths(group: Sequence[Sample]) -> list[Truth]:
    return [truth for _, truth in group]
