"""Checks all ground truth before work starts: that it is there, of the size of its images, and holds classes only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.measures import GroundTruth
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import open_untrusted
from fcn_deploy.data.labels import find_labels, read_labels
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.accuracy import Ignored, is_ignored, not_classes
from fcn_deploy.evaluation.truth import TruthTally
from fcn_deploy.files import reading
from fcn_deploy.progress import Progress, Silent

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # values of the EXIF orientation that exchange width and height


def check_truth(
    images: ImageFolder,
    labels: Path,
    spec: ModelSpec,
    ignore_index: Ignored,
    *,
    progress: Progress | None = None,
) -> GroundTruth:
    """Reads all ground truth of a set of images, before anything is done with the images.

    Args:
        images: The images; only their headers are read.
        labels: Folder of their ground truth.
        spec: Of the net: classes and palette.
        ignore_index: Truth that does not count.
        progress: Told of each file.

    Returns:
        What the ground truth says.

    Raises:
        InputError: A file is missing, cannot be read, is not of the size of its image or holds other values; or no
            pixel of all of them is labelled. The message names the file.
    """
    files = find_labels(images.paths, labels)
    tally = TruthTally(spec.classes, ignore_index)
    pairs = zip(images.paths, files, strict=True)
    for image, file in (progress or Silent()).track(pairs, len(files), "checking the ground truth"):
        truth = read_labels(file, spec.palette, ignore_index if isinstance(ignore_index, int) else None)
        check_one(truth, file, image, file_size(image), spec.num_classes, ignore_index)
        tally.add(truth)
    return tally.result(str(labels))


def check_one(
    truth: NDArray[np.integer[Any]],
    file: Path,
    image: Path,
    size: tuple[int, int] | None,
    num_classes: int,
    ignore_index: Ignored,
) -> None:
    """Checks the ground truth of one image.

    Args:
        truth: Integer [H, W].
        file: Where it was read from.
        image: The file of the image.
        size: [height, width] of the image; None if it could not be read from its header.
        num_classes: C.
        ignore_index: Truth that does not count.

    Raises:
        InputError: The sizes differ, or a value is neither a class nor ignored.
    """
    if size is not None and truth.shape != size:
        raise InputError(
            f"{file} is not of the size of its image, {image.name}",
            got="x".join(map(str, truth.shape)),
            expected="x".join(map(str, size)),
        )
    values = np.unique(truth[~is_ignored(truth, ignore_index)])
    stray = values[(values < 0) | (values >= num_classes)].tolist()
    if stray:
        raise not_classes(str(file), stray, num_classes, ignore_index)


def file_size(path: Path) -> tuple[int, int] | None:
    """Returns [height, width] that an image file states, with EXIF rotation; None if it cannot be read."""
    try:
        with reading(path), open_untrusted(path) as file:
            width, height = file.size
            turned = file.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # Pillow raises nearly every type; what is wrong with an image is said when it is read
        return None
    return (width, height) if turned else (height, width)
