"""Pairs images with their ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.labels import find_labels, read_labels
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.comparison import Sample
from fcn_deploy.progress import Progress, Silent


def samples(
    images: ImageFolder,
    labels: Path | None,
    what: str,
    *,
    palette: Sequence[Rgb] = (),
    ignore_index: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Yields images with their ground truth, or with None if there is no folder of labels.

    Raises:
        InputError: An image has no labels, or a file cannot be read.
        UsageError: The images are resized, and labels cannot be.
    """
    progress = progress or Silent()
    if labels is None:
        return ((image, None) for image in progress.track(images, len(images), what))
    if images.size is not None:
        raise UsageError("labels cannot be resized with the images", got=f"`labels` {labels} with a size")
    truths = (read_labels(path, palette, ignore_index) for path in find_labels(images.paths, labels))
    return zip(progress.track(images, len(images), what), truths, strict=True)
