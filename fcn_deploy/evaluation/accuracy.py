"""Accuracy against ground truth: confusion matrices, intersection over union (IoU), and the drop between two engines.

Definitions as in section 5 of Long et al., https://arxiv.org/abs/1411.4038. All figures are in points, 0..100.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.measures import Drop
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.bootstrap import RESAMPLES, draws, interval

Matrix = NDArray[np.int64]

# Truth that does not count: one value, several, or none.
Ignored: TypeAlias = int | Collection[int] | None

_SHOWN = 8


def confusion_matrix(
    truth: NDArray[np.integer], labels: NDArray[np.integer], num_classes: int, ignore_index: Ignored = None
) -> Matrix:
    """Counts how often a pixel of class i was labelled j.

    Args:
        truth: Integer [H, W] (or any shape), 0..C-1 or one of `ignore_index`.
        labels: Integer, of the same shape, 0..C-1.
        num_classes: C.
        ignore_index: Pixels with this truth, or one of these, do not count; None if all do.

    Returns:
        int64 [C, C], rows truth, columns labels.

    Raises:
        InputError: The shapes differ, a truth value is neither a class nor ignored, or a label is not a class.
    """
    if truth.shape != labels.shape:
        raise InputError("labels and ground truth differ in shape", got=list(labels.shape), expected=list(truth.shape))
    counted = ~is_ignored(truth, ignore_index)
    truth, labels = truth[counted].astype(np.int64), labels[counted].astype(np.int64)
    if not _all_classes(truth, num_classes):
        stray = sorted(set(np.unique(truth).tolist()) - set(range(num_classes)))
        raise not_classes("the ground truth", stray, num_classes, ignore_index)
    if not _all_classes(labels, num_classes):
        raise InputError(
            "the net gives labels that are not classes",
            got=f"{labels.min()} to {labels.max()}",
            expected=f"0..{num_classes - 1}",
        )
    counts = np.bincount(truth * num_classes + labels, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def ignored_values(ignore_index: Ignored) -> tuple[int, ...]:
    """Returns the values that are ignored, in ascending order."""
    if ignore_index is None:
        return ()
    return (ignore_index,) if isinstance(ignore_index, int) else tuple(sorted(set(ignore_index)))


def is_ignored(truth: NDArray[np.integer], ignore_index: Ignored) -> NDArray[np.bool_]:
    """Returns, as bool of the shape of `truth`, which pixels do not count."""
    found = np.zeros(truth.shape, bool)
    for value in ignored_values(ignore_index):
        found |= truth == value
    return found


def not_classes(what: str, values: Sequence[int], num_classes: int, ignore_index: Ignored) -> InputError:
    """Returns the error for values of the ground truth that are neither a class nor ignored.

    Args:
        what: Where they are: the file.
        values: All of them; at most eight are shown.
        num_classes: C.
        ignore_index: What is ignored.
    """
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    ignored = " or ".join(map(str, ignored_values(ignore_index)))
    return InputError(
        f"{what} holds values that are not classes",
        got=", ".join(map(str, values[:_SHOWN])) + more,
        expected=f"0..{num_classes - 1}{f', or {ignored}, which is ignored' if ignored else ''}",
        fix="name the value that means 'not labelled' with `ignore_index`",
    )


def _all_classes(values: NDArray[np.integer], num_classes: int) -> bool:
    return not values.size or bool(values.min() >= 0 and values.max() < num_classes)


def class_iou(matrix: Matrix) -> NDArray[np.float64]:
    """Returns the intersection over union of each class in points; NaN for a class that occurs in neither.

    Args:
        matrix: int64 [..., C, C].

    Returns:
        float64 [..., C].
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(-1) + matrix.sum(-2) - hits
    with np.errstate(invalid="ignore"):
        return np.where(union > 0, 100 * hits / union, np.nan)


def mean_iou(matrix: Matrix) -> NDArray[np.float64]:
    """Returns the mean of `class_iou` over the classes that occur, in points; NaN if none does.

    Args:
        matrix: int64 [..., C, C].

    Returns:
        float64 [...].
    """
    iou = class_iou(matrix)
    present = ~np.isnan(iou)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(iou, axis=-1) / np.where(present.any(-1), present.sum(-1), np.nan)
    return mean


def pixel_accuracy(matrix: Matrix) -> float:
    """Returns the share of counted pixels that were labelled right, in points; NaN if none was counted."""
    total = matrix.sum()
    return float(100 * np.trace(matrix) / total) if total else float("nan")


def frequency_weighted_iou(matrix: Matrix) -> float:
    """Returns the mean of `class_iou` weighted by the pixels of each class, in points; NaN if none was counted.

    Args:
        matrix: int64 [C, C].
    """
    pixels = matrix.sum(-1)
    total = pixels.sum()
    # A class without pixels has the weight 0, whether its IoU is 0 or NaN; nansum leaves the NaN out.
    return float(np.nansum(class_iou(matrix) * pixels) / total) if total else float("nan")


def chance_miou(pixels: NDArray[np.integer]) -> float:
    """Returns the mIoU of labels that are guessed by frequency alone: each class as often as it occurs, anywhere.

    A class with the share p of the truth is then right on p * p of the pixels, and in truth or labels on 2 p - p * p of
    them, so that its IoU is p / (2 - p).

    Args:
        pixels: Integer [C], how often each class occurs in the truth.

    Returns:
        The mean over the classes that occur, in points, 0..100; NaN if none does.
    """
    present = pixels[pixels > 0]
    if not present.size:
        return float("nan")
    shares = present / present.sum()
    return float(100 * np.mean(shares / (2 - shares)))


def is_near_chance(miou: float, chance: float) -> bool:
    """Returns whether an mIoU is hardly better than guessing: less than a tenth of the way from chance to 100.

    Args:
        miou: In points.
        chance: What `chance_miou` gives, in points.
    """
    return miou < chance + 0.1 * (100 - chance)


def miou_drop(reference: Matrix, engine: Matrix, *, resamples: int = RESAMPLES, seed: int = 0) -> Drop:
    """Compares two nets on the same images, with a paired percentile bootstrap over the images.

    Each draw takes the same images for both nets, and the interval is that of the differences.

    Args:
        reference: int64 [images, C, C], one confusion matrix an image, of the reference.
        engine: The same of the engine.
        resamples: Number of draws.
        seed: Of the draws, so that the interval is reproducible.

    Returns:
        The drop in points; NaN if no pixel was counted. The interval is NaN for fewer than two images.
    """
    images = len(reference)
    points = float(mean_iou(reference.sum(0)) - mean_iou(engine.sum(0)))
    if images < 2 or not np.isfinite(points):
        return Drop(points, float("nan"), float("nan"))
    drawn = draws(images, resamples=resamples, seed=seed)
    differences = mean_iou(np.tensordot(drawn, reference, 1)) - mean_iou(np.tensordot(drawn, engine, 1))
    return Drop(points, *interval(differences))
