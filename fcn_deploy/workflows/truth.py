"""Checks all ground truth before work starts: that it is there, of the size of its images, and holds classes only."""

from __future__ import annotations

from dataclasses import replace

from fcn_deploy.artifacts.measures import GroundTruth
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.data.exchanged import check_not_exchanged
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import stated_size
from fcn_deploy.data.labels import check_size
from fcn_deploy.evaluation.truth import TruthTally
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.workflows.samples import TruthOptions


def check_pairs(images: ImageFolder, options: TruthOptions) -> None:
    """Checks, before the net is known, that each image has ground truth, and that the two folders are not exchanged.

    Raises:
        InputError: A file is missing, or the folders are exchanged.
        UsageError: The images are resized, or they are the ground truth.
    """
    check_not_exchanged(images.paths, options.files(images))


def check_truth(
    images: ImageFolder, options: TruthOptions, spec: ModelSpec, *, progress: Progress | None = None
) -> GroundTruth:
    """Reads all ground truth of a set of images, before anything is done with the images.

    Args:
        images: The images; only their headers are read.
        options: Where the ground truth is, and how it is read.
        spec: Of the net: classes and palette.
        progress: Told of each file.

    Returns:
        What the ground truth says.

    Raises:
        InputError: A file is missing, cannot be read, is not of the size of its image or holds other values; or no
            pixel of all of them is labelled. The message names the file.
    """
    files, reader = options.files(images), options.reader(spec)
    reader.check_folders(images.paths, files)
    tally = TruthTally(spec.classes, reader.ignore_index)
    pairs = zip(images.paths, files, strict=True)
    for image, file in (progress or Silent()).track(pairs, len(files), "checking the ground truth"):
        size = stated_size(image)
        truth, ignored = reader.read_counted(file)
        if size is not None:
            check_size(file, truth.shape, image, size)
        tally.add(truth, ignored=ignored)
    return replace(tally.result(str(options.folder)), ignore_indices=reader.ignored)


def with_ignored(measured: GroundTruth, checked: GroundTruth) -> GroundTruth:
    """Returns what was counted while nets ran, with the ignored values as they are in the files.

    Args:
        measured: Of the same files as `checked`, but of truth in which all that is ignored has one value.
        checked: What `check_truth` returned.
    """
    return replace(measured, ignored_values=checked.ignored_values, ignore_indices=checked.ignore_indices)
