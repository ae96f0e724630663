"""Accuracy against ground truth: confusion matrices, intersection over union (IoU), and the drop between two engines.

Definitions as in section 5 of Long et al., https://arxiv.org/abs/1411.4038. All figures are in points, 0..100.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.measures import Drop
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.bootstrap import RESAMPLES, draws, interval

Matrix = NDArray[np.int64]


def confusion_matrix(
    truth: NDArray[np.integer], labels: NDArray[np.integer], num_classes: int, ignore_index: int | None = None
) -> Matrix:
    """Counts how often a pixel of class i was labelled j.

    Args:
        truth: Integer [H, W] (or any shape), 0..C-1 or `ignore_index`.
        labels: Integer, of the same shape, 0..C-1.
        num_classes: C.
        ignore_index: Pixels with this truth do not count; None if all do.

    Returns:
        int64 [C, C], rows truth, columns labels.

    Raises:
        InputError: The shapes differ, a truth value is neither a class nor ignored, or a label is not a class.
    """
    if truth.shape != labels.shape:
        raise InputError("labels and ground truth differ in shape", got=list(labels.shape), expected=list(truth.shape))
    counted = np.ones(truth.shape, bool) if ignore_index is None else truth != ignore_index
    truth, labels = truth[counted].astype(np.int64), labels[counted].astype(np.int64)
    if not _all_classes(truth, num_classes):
        stray = sorted(set(np.unique(truth).tolist()) - set(range(num_classes)))
        raise InputError(
            "the ground truth holds values that are not classes",
            got=stray,
            expected=f"0..{num_classes - 1}{'' if ignore_index is None else f', or {ignore_index}, which is ignored'}",
            fix="name the value that means 'not labelled' with `ignore_index`",
        )
    if not _all_classes(labels, num_classes):
        raise InputError(
            "the net gives labels that are not classes",
            got=f"{labels.min()} to {labels.max()}",
            expected=f"0..{num_classes - 1}",
        )
    counts = np.bincount(truth * num_classes + labels, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


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
