"""Ground truth: index images and colour masks."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn_deploy.artifacts.palette import Rgb, default_palette
from fcn_deploy.data.images import Decoded, decode, listed
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path

_log = logging.getLogger(__name__)

_SHOWN = 8  # values in an error
# The value in _values of a pixel whose colour means "not labelled". No file of ground truth holds it.
_UNLABELLED = np.iinfo(np.int32).min
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
        ignored: Values that do not count, as in `read_labels`; applied to values that `label_map` does not name.
        label_map: What values mean: a class, or None for "does not count". Of a colour mask, the values are the classes
            of its colours.
    """

    num_classes: int
    palette: tuple[Rgb, ...] = ()
    ignored: tuple[int, ...] = ()
    label_map: Mapping[int, int | None] = field(default_factory=dict)

    @property
    def ignore_index(self) -> int | None:
        """What pixels that do not count are in the result; None if all count."""
        if self.ignored:
            return self.ignored[0]
        if None not in self.label_map.values():
            return None
        return 255 if self.num_classes <= 255 else -1

    def read(self, path: str | os.PathLike[str]) -> NDArray[np.int32]:
        """Reads the truth of an image.

        Returns:
            int32 [H, W], each value in 0..C-1, or `ignore_index`.

        Raises:
            InputError: As `read_labels`, or a value is neither a class, nor ignored, nor in the label map.
        """
        path = as_path(path)
        values = _values(decode(path), path, self.palette, self.ignored)
        if values.min() >= 0 and values.max() <= _TABLE:  # a table is much faster than sorting
            found = np.flatnonzero(np.bincount(values.ravel())).tolist()
            table = np.zeros(found[-1] + 1, np.int32)
            table[found] = self._meanings(found, path)
            return table[values]
        distinct, keys = np.unique(values, return_inverse=True)
        return np.array(self._meanings(distinct.tolist(), path), np.int32)[keys].reshape(values.shape)

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
        if truth.shape != shape:
            raise _other_size(path, truth.shape, image, shape)
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
            values = _values(here, image, self.palette, self.ignored)
        except InputError:
            return False
        found = np.unique(values)
        if len(found) < 2 or any(self._meaning(value) is None for value in found.tolist()):
            return False
        return here.image.mode not in ("RGB", "RGBA") or other.image.convert("RGB").getcolors(_PHOTO) is None

    def _meaning(self, value: int) -> int | None:
        """Returns the label of a value; None if it is not understood."""
        if value == _UNLABELLED:
            return self.ignore_index
        label = self.label_map.get(value, value)
        if label is None or label in self.ignored:
            return self.ignore_index
        return label if 0 <= label < self.num_classes else None

    def _not_understood(self, path: Path, found: Sequence[int], strays: Sequence[int]) -> InputError:
        last = self.num_classes - 1
        ignored = f", or {', '.join(map(str, self.ignored))}, which is ignored" if self.ignored else ""
        got = listed(strays, _SHOWN)
        if len(strays) > _MANY:
            what = f"{path} holds {len(strays)} values that are not classes, as an image of instance ids does"
            fix = "use the file of class ids that the data set has beside it; instance ids are not read"
            return InputError(what, got=got, expected=f"0..{last}{ignored}", fix=fix)
        counted = [value for value in found if value not in self.ignored and value != _UNLABELLED]
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
    values = _values(decode(path), path, palette or (), ignored)
    return values if not ignored else np.where(values == _UNLABELLED, np.int32(ignored[0]), values)


def _values(file: Decoded, path: Path, palette: Sequence[Rgb], ignored: Sequence[int]) -> NDArray[np.int32]:
    """Returns what a file holds: indices, or the classes of its colours, and _UNLABELLED for ignored colours."""
    image = file.image
    if file.format in ("JPEG", "MPO"):
        raise InputError(
            f"{path} is a JPEG, which changes values near edges",
            expected="ground truth in a format without loss",
            fix="export it as PNG from the tool that made it; converting the JPEG does not bring the values back",
        )
    if palette and image.mode in ("RGB", "RGBA"):
        return _from_colors(np.asarray(image.convert("RGB")), path, palette, bool(ignored))
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
        raise InputError(
            f"{path} is not an index image",
            got=f"mode {image.mode}",
            expected="one channel, whose value is the class",
            fix="convert it to indices, or to 8-bit RGB in the colours of the classes",
        )
    values = np.asarray(image).astype(np.int32)
    if image.mode == "P" and palette:
        return _from_palette(image, values, path, palette, ignored)
    return values


def _from_palette(
    image: Image.Image, values: NDArray[np.int32], path: Path, palette: Sequence[Rgb], ignored: Sequence[int]
) -> NDArray[np.int32]:
    """Reads a palette image by its colours if all that occur are classes' or ignored, else by its indices."""
    own = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = np.unique(values).tolist()
    classes = _classes_of(palette)
    by_color: dict[int, int] = {}
    for index in used:
        color = tuple(own[index].tolist()) if index < len(own) else None
        label = None if color is None else classes.get(color)
        if label is None and ignored and (index in ignored or color == (0, 0, 0)):
            label = _UNLABELLED
        if label is not None:
            by_color[index] = label
    given = tuple(palette) != default_palette(len(palette))
    # Two indices of one colour would become one class: then the colours are not what the file says.
    labels = [label for label in by_color.values() if label != _UNLABELLED]
    # Nor are the greys that programs write for index images, unless the user gave such colours.
    ramp = all(index < len(own) and (own[index] == index).all() for index in used)
    if len(by_color) == len(used) and len(set(labels)) == len(labels) and (given or not ramp):
        by_index = {index: _UNLABELLED if index in ignored else index for index in used}
        if by_index != by_color and not given:
            _note(path.parent, "by their colours, which are the classes', though the indices say something else")
        table = np.zeros(max(used) + 1, np.int32)
        table[used] = [by_color[index] for index in used]
        return table[values]
    if given:
        _note(path.parent, "by index: they have colours that no class has")
    return values


@functools.lru_cache(1024)
def _note(folder: Path, how: str) -> None:
    """Logs how palette images are read; once for a folder."""
    _log.warning("%s: palette images are read %s", folder, how)


def _classes_of(palette: Sequence[Rgb]) -> dict[tuple[int, ...], int]:
    """Returns the class of each colour, without colours that two classes share."""
    colors = [tuple(color) for color in palette]
    return {color: index for index, color in enumerate(colors) if colors.count(color) == 1}


def _from_colors(
    pixels: NDArray[np.uint8], path: Path, palette: Sequence[Rgb], ignore_black: bool
) -> NDArray[np.int32]:
    def code(colors: NDArray[Any]) -> NDArray[np.int32]:
        return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)

    labels = {(red << 16) + (green << 8) + blue: index for (red, green, blue), index in _classes_of(palette).items()}
    if ignore_black and (0, 0, 0) not in {tuple(color) for color in palette}:
        labels[0] = int(_UNLABELLED)
    found, inverse = np.unique(code(pixels), return_inverse=True)
    unknown = [color for color in found.tolist() if color not in labels]
    if unknown:
        many = len(unknown) > _MANY
        grey = bool((pixels[..., :1] == pixels).all())
        fix = "export with `class_names` that state the colours"
        if many:
            fix = "name a folder of ground truth with `labels`; " + fix
        elif grey:
            fix = "if its grey values are the classes, save it with one channel; else " + fix
        count = f"{len(unknown)} colours" if len(unknown) > _SHOWN else "colours"
        raise InputError(
            f"{path} has {count} that no class has" + (", as a photo does" if many else ""),
            got=listed([f"{color >> 16},{color >> 8 & 255},{color & 255}" for color in unknown], _SHOWN),
            expected="the palette of the net",
            fix=fix,
        )
    return np.array([labels[color] for color in found.tolist()], np.int32)[inverse].reshape(pixels.shape[:2])


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
