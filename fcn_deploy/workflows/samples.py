"""Pairs images with their ground truth."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.label_map import Side, check_label_map, read_label_map, read_once
from fcn_deploy.data.labels import TruthReader
from fcn_deploy.data.pairing import find_labels
from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.comparison import Sample
from fcn_deploy.files import StrPath, as_path, real_path
from fcn_deploy.progress import Progress, Silent

# One value or several; None for the net's own.
IgnoreIndex: TypeAlias = int | Sequence[int] | None
LabelMapping: TypeAlias = StrPath | Mapping[Side, Side]


@dataclass(frozen=True)
class TruthOptions:
    """What the user says about ground truth.

    Attributes:
        folder: Where it is.
        ignore_index: Values that do not count; the net's own if None.
        label_map: What values mean, as `read_label_map` takes it; None if they are the net's labels.
        suffix: What the names of the files have after those of the images.
        recursive: Whether sub-folders are searched.
    """

    folder: Path
    ignore_index: tuple[int, ...] | None = None
    label_map: LabelMapping | None = None
    suffix: str = ""
    recursive: bool = False

    @classmethod
    def of(
        cls,
        labels: StrPath | None,
        *,
        ignore_index: IgnoreIndex = None,
        label_map: LabelMapping | None = None,
        label_suffix: str | None = None,
        recursive: bool = False,
    ) -> TruthOptions | None:
        """Returns the options of a function that takes them one by one; None if there is no ground truth.

        Raises:
            InputError: The label map cannot be read.
            UsageError: There are options of labels, and no labels; the label map is not understood; or `ignore_index`
                is neither an integer nor several.
        """
        if labels is None:
            for name, value in {
                "ignore_index": ignore_index,
                "label_map": label_map,
                "label_suffix": label_suffix,
            }.items():
                if value is not None:
                    raise UsageError(f"`{name}` needs labels", got=f"`{name}` alone", expected="`labels` with it")
            return None
        label_map = read_once(label_map)
        check_label_map(label_map)
        return cls(as_path(labels), ignore_indices(ignore_index), label_map, label_suffix or "", recursive)

    def files(self, images: ImageFolder) -> tuple[Path, ...]:
        """Returns the file of ground truth of each image.

        Raises:
            InputError: An image has none, or several.
            UsageError: The images are resized, and labels cannot be; or they are the ground truth.
        """
        if images.size is not None:
            raise UsageError("labels cannot be resized with the images", got=f"`labels` {self.folder} with a size")
        places = {images.root, *(path.parent for path in images.paths[:1])} - {None}
        if not self.suffix and any(real_path(place) == real_path(self.folder) for place in places if place is not None):
            raise UsageError(
                "images and ground truth are in one folder",
                got=f"{self.folder} as `data` and as `labels`",
                expected="a folder of images, and one of ground truth of the same names",
            )
        return find_labels(images.paths, self.folder, suffix=self.suffix, recursive=self.recursive, root=images.root)

    def reader(self, spec: ModelSpec) -> TruthReader:
        """Returns what reads the ground truth for a net.

        Raises:
            InputError: The label map cannot be read, or does not fit the net.
            UsageError: The label map is not understood.
        """
        own = () if spec.ignore_index is None else (spec.ignore_index,)
        ignored = own if self.ignore_index is None else self.ignore_index
        label_map = read_label_map(self.label_map, spec.classes, ignored)
        return TruthReader(spec.num_classes, spec.palette, ignored, label_map)


def ignore_indices(ignore_index: IgnoreIndex) -> tuple[int, ...] | None:
    """Returns the values that do not count, each once; None for those of the net.

    Raises:
        UsageError: It is neither an integer nor several.
    """
    if ignore_index is None:
        return None
    try:
        if isinstance(ignore_index, str | bytes):
            raise TypeError
        values = [ignore_index] if isinstance(ignore_index, int) else list(ignore_index)
        found = tuple(dict.fromkeys(operator.index(value) for value in values))
    except TypeError:
        got = repr(ignore_index)[:80]
        raise UsageError("bad `ignore_index`", got=got, expected="an integer or several, such as 255") from None
    if not found:
        raise UsageError("bad `ignore_index`", got="no value", expected="one or several, or nothing at all")
    return found


def samples(
    images: ImageFolder,
    truth: TruthOptions | None,
    what: str,
    reader: TruthReader | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Yields images with their ground truth; with None if no labels were given.

    Args:
        images: The images.
        truth: Where the ground truth is, or None.
        what: What is being done, for `progress`.
        reader: Reads the ground truth; must not be None if `truth` is not.
        progress: Told of each image.

    Raises:
        InputError: An image has no labels, a file cannot be read or does not fit, or images and labels are exchanged.
        UsageError: The images are resized, and labels cannot be.
    """
    progress = progress or Silent()
    if truth is None:
        return ((image, None) for image in progress.track(images, len(images), what))
    assert reader is not None
    files = truth.files(images)
    reader.check_folders(images.paths, files)
    return _with_truth(images, files, reader, progress, what)


def _with_truth(
    images: ImageFolder, files: Sequence[Path], reader: TruthReader, progress: Progress, what: str
) -> Iterator[Sample]:
    pairs = zip(images.paths, files, strict=True)
    for image, (path, file) in zip(progress.track(images, len(images), what), pairs, strict=True):
        yield image, reader.read_for(file, path, (image.shape[0], image.shape[1]))
