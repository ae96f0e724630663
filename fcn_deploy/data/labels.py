"""Ground truth: index images and colour masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.data.images import decode, listed
from fcn_deploy.data.label_values import UNLABELLED, read_values
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path

_SHOWN = 8  # values in an error
_TABLE = 65535
_MANY = 64  # more stray values than this are instance ids, or a photo
_INSPECTED = 3  # pairs that are looked at to find out whether the folders are swapped
_PHOTO = 64  # a photo has more colours than this


@dataclass(frozen=True)
class TruthReader:
    """Reads ground truth as labels of a net: each pixel a class, or `ignore_index`.

    Attributes:
        num_classes: C, the classes of the net.
        palette: The colours of the classes, for masks; empty if there are none.
        ignored: Values that do not count, as in `read_labels`; applied to values that `label_map` does not name. A
            value that the map makes a class counts, also if a file could hold that class's number as an ignored value.
        label_map: What values mean: a class, or None for "does not count". Of a colour mask, the values are the classes
            of its colours.
    """

    num_classes: int
    palette: tuple[Rgb, ...] = ()
    ignored: tuple[int, ...] = ()
    label_map: Mapping[int, int | None] = field(default_factory=dict)

    @property
    def ignore_index(self) -> int | None:
        """What pixels that do not count are in the result: never a class. None if all count."""
        if not self.ignored and None not in self.label_map.values():
            return None
        outside = [value for value in self.ignored if not 0 <= value < self.num_classes]
        return outside[0] if outside else 255 if self.num_classes <= 255 else -1

    def read(self, path: str | os.PathLike[str]) -> NDArray[np.int32]:
        """Reads the truth of an image.

        Returns:
            int32 [H, W], each value in 0..C-1, or `ignore_index`.

        Raises:
            InputError: As `read_labels`, or a value is neither a class, nor ignored, nor in the label map.
        """
        return self.read_counted(path)[0]

    def read_counted(self, path: str | os.PathLike[str]) -> tuple[NDArray[np.int32], Counter[int]]:
        """Reads the truth of an image, and counts the pixels that do not count.

        Returns:
            As `read`; and the number of pixels of each value that is ignored, as the file has it. Colours that mean
            "not labelled" are counted as the first of `ignored`.

        Raises:
            InputError: As `read`.
        """
        path = as_path(path)
        values = read_values(decode(path), path, self.palette, self.ignored, bool(self.label_map))
        if values.min() >= 0 and values.max() <= _TABLE:  # a table is much faster than sorting
            counts = np.bincount(values.ravel())
            found = np.flatnonzero(counts)
            table = np.zeros(len(counts), np.int32)
            table[found] = meant = self._meanings(found.tolist(), path)
            labels, counts = table[values], counts[found]
        else:
            found, keys, counts = np.unique(values, return_inverse=True, return_counts=True)
            meant = self._meanings(found.tolist(), path)
            labels = np.array(meant, np.int32)[keys].reshape(values.shape)
        ignored: Counter[int] = Counter()
        for value, label, count in zip(found.tolist(), meant, counts.tolist(), strict=True):
            if label == self.ignore_index:
                ignored[self.ignored[0] if value == UNLABELLED else value] += count
        return labels, ignored

    def _meanings(self, found: Sequence[int], path: Path) -> list[int]:
        meant = [self._meaning(value) for value in found]
        strays = [value for value, label in zip(found, meant, strict=True) if label is None]
        if strays:
            raise self._not_understood(path, found, strays)
        return [label for label in meant if label is not None]

    def read_for(self, path: Path, image: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
        """Reads the truth of an image, which has to be of its size.

        Args:
            path: Of the truth.
            image: Of the image, for the error.
            shape: [height, width] of the image.

        Raises:
            InputError: As `read`, or the truth is of another size.
        """
        truth = self.read(path)
        check_size(path, truth.shape, image, shape)
        return truth

    def check_folders(self, images: Sequence[Path], labels: Sequence[Path]) -> None:
        """Checks, on a few pairs, that images and ground truth are not exchanged.

        Raises:
            InputError: They are.
        """
        pairs = list(zip(images, labels, strict=True))[:_INSPECTED]
        if pairs and all(self._exchanged(*pair) for pair in pairs):
            image, truth = pairs[0]
            raise InputError(
                "images and ground truth are exchanged",
                got=f"{image}, which holds classes, in `data`, and {truth}, which is an image, in `labels`",
                fix="swap `data` and `labels`",
            )

    def _exchanged(self, image: Path, truth: Path) -> bool:
        other = decode(truth)
        if other.image.mode not in ("RGB", "RGBA"):
            return False
        here = decode(image)
        try:
            values = read_values(here, image, self.palette, self.ignored, bool(self.label_map))
        except InputError:
            return False
        found = np.unique(values)
        if len(found) < 2 or any(self._meaning(value) is None for value in found.tolist()):
            return False
        return here.image.mode not in ("RGB", "RGBA") or other.image.convert("RGB").getcolors(_PHOTO) is None

    def _meaning(self, value: int) -> int | None:
        """Returns the label of a value; None if it is not understood."""
        if value == UNLABELLED:
            return self.ignore_index
        if value not in self.label_map:
            is_class, ignored = 0 <= value < self.num_classes, value in self.ignored
            return self.ignore_index if ignored else value if is_class else None
        label = self.label_map[value]
        if label is not None and 0 <= label < self.num_classes:
            return label
        return self.ignore_index if label is None or label in self.ignored else None

    def _not_understood(self, path: Path, found: Sequence[int], strays: Sequence[int]) -> InputError:
        last = self.num_classes - 1
        ignored = f", or {', '.join(map(str, self.ignored))}, which is ignored" if self.ignored else ""
        got = listed(strays, _SHOWN)
        if len(strays) > _MANY:
            what = f"{path} holds {len(strays)} values that are not classes, as an image of instance ids does"
            fix = "use the file of class ids that the data set has beside it; instance ids are not read"
            return InputError(what, got=got, expected=f"0..{last}{ignored}", fix=fix)
        counted = [value for value in found if value not in self.ignored and value != UNLABELLED]
        fix = "name values that mean 'not labelled' with `ignore_index`, or say what they are with `label_map`"
        if list(strays) == [self.num_classes]:
            if min(counted) >= 1:
                fix = (
                    "if the classes count from 1, add "
                    f'`label_map="1..{self.num_classes}=0..{last}"`; a lone value that means "not labelled" is named '
                    "with `ignore_index`"
                )
            else:
                fix = (
                    "if 0 means 'not labelled' and the classes count from 1, add "
                    f'`label_map="0=ignore,1..{self.num_classes}=0..{last}"`; else ' + fix
                )
        count = "a value that is not a class" if len(strays) == 1 else f"{len(strays)} values that are not classes"
        return InputError(f"{path} holds {count}", got=got, expected=f"0..{last}{ignored}", fix=fix)


def read_labels(
    path: str | os.PathLike[str],
    palette: Sequence[Rgb] | None = None,
    ignore_index: int | Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """Reads labels: an index image, whose pixel value or palette index is the class, or a colour mask.

    A palette image is read by its colours if each that occurs is a class's (or an ignored one), else by its indices.
    1-bit images are 0 and 1.

    Args:
        path: The file.
        palette: The RGB colours of the classes, by which colour masks are read; without it they are refused.
        ignore_index: Labels that do not count. The first is that of black pixels in a colour mask if no class is black,
            as in CamVid's masks; None to refuse them.

    Returns:
        int32 [H, W].

    Raises:
        InputError: The file cannot be read, is damaged, is a JPEG, or holds a colour that no class has.
    """
    path = as_path(path)
    ignored = () if ignore_index is None else (ignore_index,) if isinstance(ignore_index, int) else tuple(ignore_index)
    values = read_values(decode(path), path, palette or (), ignored, False)
    return values if not ignored else np.where(values == UNLABELLED, np.int32(ignored[0]), values)


def check_size(path: Path, truth: tuple[int, ...], image: Path, shape: tuple[int, int]) -> None:
    """Checks that ground truth is of the size of its image.

    Args:
        path: Of the truth.
        truth: Its [height, width].
        image: Of the image.
        shape: Its [height, width].

    Raises:
        InputError: It is of another size; the message says whether a rotation is the reason.
    """
    if truth != shape:
        raise _other_size(path, truth, image, shape)


def _other_size(path: Path, truth: tuple[int, ...], image: Path, shape: tuple[int, int]) -> InputError:
    what = f"{path} is not of the size of its image {image}"
    sizes = {"got": f"{truth[0]}x{truth[1]}", "expected": f"{shape[0]}x{shape[1]}, as the image"}
    if truth != shape[::-1]:
        return InputError(what, **sizes, fix="images and ground truth are not resized: bring both to one size")
    if decode(image).turned != decode(path).turned:
        turned, other = (image, path) if decode(image).turned else (path, image)
        return InputError(
            f"{what}: the EXIF orientation of {turned} turns it, and {other} has none",
            **sizes,
            fix=f"turn the pixels of {other} in the same way, or remove the orientation of {turned}",
        )
    return InputError(what, **sizes, fix="height and width are exchanged: turn one of the two")
