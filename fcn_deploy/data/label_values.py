"""The values in files of ground truth: indices, or the classes of colours."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn_deploy.artifacts.palette import Rgb, default_palette
from fcn_deploy.data.images import Decoded, listed
from fcn_deploy.errors import InputError

_log = logging.getLogger(__name__)

_SHOWN = 8  # values in an error
_MANY = 64  # a file with more strange colours than this is a photo
# The value of a pixel whose colour means "not labelled". No file of ground truth holds it.
UNLABELLED = np.iinfo(np.int32).min


def read_values(
    file: Decoded, path: Path, palette: Sequence[Rgb], ignored: Sequence[int], mapped: bool
) -> NDArray[np.int32]:
    """Returns what a file holds: indices, or the classes of its colours, and UNLABELLED for ignored colours.

    Args:
        file: Decoded.
        path: Of it.
        palette: The colours of the classes, or nothing.
        ignored: Values that do not count.
        mapped: Whether a label map says what values mean: then greys are values.
    """
    image = file.image
    if file.lossy is not None:
        raise InputError(
            f"{path} is {file.lossy}, which changes values near edges",
            expected="ground truth in a format without loss",
            fix="export it as PNG from the tool that made it; converting this file does not bring the values back",
        )
    if palette and image.mode in ("RGB", "RGBA"):
        return _from_colors(np.asarray(image.convert("RGB")), path, palette, ignored)
    if image.mode == "LA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.getchannel("L")
    if image.mode == "F":
        return _from_floats(np.asarray(image), path)
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
        raise InputError(
            f"{path} is not an index image",
            got=f"mode {image.mode}" + (", grey with transparent pixels" if image.mode == "LA" else ""),
            expected="one channel, whose value is the class",
            fix="convert it to indices, or to 8-bit RGB in the colours of the classes",
        )
    values = np.asarray(image).astype(np.int32)
    if image.mode == "P" and palette:
        return _from_palette(image, values, path, palette, ignored, mapped)
    if file.grey_step > 1:
        return values // file.grey_step
    given = tuple(palette) != default_palette(len(palette))
    return _from_greys(values, path, palette, ignored) if image.mode == "L" and given and not mapped else values


def _from_floats(pixels: NDArray[Any], path: Path) -> NDArray[np.int32]:
    values = np.nan_to_num(pixels, nan=0.5).clip(-(2**30), 2**30)
    if (values != np.rint(pixels)).any():
        raise InputError(f"{path} holds values that are no integers", expected="classes", fix="save it as integers")
    labels: NDArray[np.int32] = values.astype(np.int32)
    return labels


def _from_greys(
    values: NDArray[np.int32], path: Path, palette: Sequence[Rgb], ignored: Sequence[int]
) -> NDArray[np.int32]:
    """Reads a grey image: by value, but by colour if the user gave classes greys and the file has no other ones.

    If some classes have other colours than grey, greys that could also be classes by value are.
    """
    greys = {color[0]: label for color, label in _classes_of(palette).items() if len(set(color)) == 1}
    if not greys:
        return values
    unlabelled = {color[0] for color in _unlabelled_colors(palette, ignored) if len(set(color)) == 1}
    used = np.unique(values).tolist()
    understood = all(0 <= value < len(palette) or value in ignored for value in used)
    only_greys = len(greys) == len(palette)
    colored = all(value in greys or value in unlabelled or value in ignored for value in used)
    if not colored or (understood and not only_greys):
        if only_greys:
            _note(path.parent, "grey images are read by value: they have greys that no class has")
        return values
    _note(path.parent, "grey images are read by colour: their greys are the classes'")
    table = np.zeros(max(used) + 1, np.int32)
    table[used] = [greys.get(value, UNLABELLED) for value in used]
    return table[values]


def _unlabelled_colors(palette: Sequence[Rgb], ignored: Sequence[int]) -> set[tuple[int, ...]]:
    """Returns the colours that mean "not labelled", if no class has them: black, and those of ignored indices in VOC.

    Of the usual 255 that is 224,224,192, the border of objects in the masks of PASCAL VOC.
    """
    if not ignored:
        return set()
    voc = default_palette(256)
    colors: set[tuple[int, ...]] = {(0, 0, 0), *(voc[value] for value in ignored if 0 <= value < 256)}
    return colors - {tuple(color) for color in palette}


def _from_palette(
    image: Image.Image,
    values: NDArray[np.int32],
    path: Path,
    palette: Sequence[Rgb],
    ignored: Sequence[int],
    mapped: bool,
) -> NDArray[np.int32]:
    """Reads a palette image by its colours if all that occur are classes' or ignored, else by its indices."""
    own: list[tuple[int, ...]] = [
        tuple(color) for color in np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3).tolist()
    ]
    used = np.unique(values).tolist()
    classes, unlabelled = _classes_of(palette), _unlabelled_colors(palette, ignored)
    occurs = Counter(own)
    by_color: dict[int, int] = {}
    for index in used:
        color = own[index] if index < len(own) else None
        label = None if color is None else classes.get(color)
        # An ignored index of a colour that stands several times in the palette: programs fill palettes with black.
        padding = color is not None and label is not None and occurs[color] > 1
        if (index in ignored and (label is None or padding)) or (label is None and color in unlabelled):
            label = UNLABELLED
        if label is not None:
            by_color[index] = label
    given = tuple(palette) != default_palette(len(palette))
    # Two indices of one colour would become one class: then the colours are not what the file says.
    labels = [label for label in by_color.values() if label != UNLABELLED]
    # Nor are the greys that programs write for index images, unless the user gave such colours.
    ramp = all(index < len(own) and own[index] == (index, index, index) for index in used)
    by_index = {index: UNLABELLED if index in ignored else index for index in used}
    if len(by_color) == len(used) and len(set(labels)) == len(labels) and (given or not ramp):
        if by_index != by_color and (mapped or not given):
            also = "; `label_map` is of classes, not of indices" if mapped else ""
            what = "palette images are read by their colours, which are the classes', though the indices say something"
            _note(path.parent, f"{what} else{also}")
        table = np.zeros(max(used) + 1, np.int32)
        table[used] = [by_color[index] for index in used]
        return table[values]
    if given:
        _note(path.parent, "palette images are read by index: they have colours that no class has")
    elif not ramp and any(by_index[index] != label for index, label in by_color.items()):
        _note(
            path.parent,
            "palette images are read by index: not all of their colours are classes', but some are, of other indices",
        )
    return values


@functools.lru_cache(1024)
def _note(folder: Path, how: str) -> None:
    """Logs how images are read; once for a folder."""
    _log.warning("%s: %s", folder, how)


def _classes_of(palette: Sequence[Rgb]) -> dict[tuple[int, ...], int]:
    """Returns the class of each colour, without colours that two classes share."""
    colors = [tuple(color) for color in palette]
    return {color: index for index, color in enumerate(colors) if colors.count(color) == 1}


def _from_colors(
    pixels: NDArray[np.uint8], path: Path, palette: Sequence[Rgb], ignored: Sequence[int]
) -> NDArray[np.int32]:
    def code(colors: NDArray[Any]) -> NDArray[np.int32]:
        return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)

    meanings: dict[tuple[int, ...], int] = {
        **dict.fromkeys(_unlabelled_colors(palette, ignored), int(UNLABELLED)),
        **_classes_of(palette),
    }
    labels = {(red << 16) + (green << 8) + blue: label for (red, green, blue), label in meanings.items()}
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
