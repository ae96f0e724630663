"""Ground truth: index images and colour masks, and which file belongs to which image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.data.images import is_image, listed, open_image
from fcn_deploy.errors import InputError
from fcn_deploy.files import reading


def read_labels(
    path: str | os.PathLike[str], palette: Sequence[Rgb] | None = None, ignore_index: int | None = None
) -> NDArray[np.int32]:
    """Reads labels: an index image, whose pixel value or palette index is the class, or a colour mask.

    Args:
        path: The file.
        palette: The RGB colours of the classes, by which colour masks are read; without it they are refused.
        ignore_index: The label of black pixels in a colour mask if no class is black, as in CamVid's masks; None to
            refuse them.

    Returns:
        int32 [H, W].

    Raises:
        InputError: The file cannot be read, is damaged, or holds a colour that no class has.
    """
    path = Path(path)
    image = open_image(path)
    if palette and image.mode in ("RGB", "RGBA"):
        return _from_colors(np.asarray(image.convert("RGB")), path, palette, ignore_index)
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
        raise InputError(
            f"{path} is not an index image",
            got=f"mode {image.mode}",
            expected="one channel, whose value is the class",
            fix="convert it to indices, or to 8-bit RGB in the colours of the classes",
        )
    return np.asarray(image).astype(np.int32)


def _from_colors(
    pixels: NDArray[np.uint8], path: Path, palette: Sequence[Rgb], ignore_index: int | None
) -> NDArray[np.int32]:
    def code(colors: NDArray[Any]) -> NDArray[np.int32]:
        return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)

    labels = {int(color): index for index, color in enumerate(code(np.array(palette)))}
    if ignore_index is not None:
        labels.setdefault(0, ignore_index)
    found, inverse = np.unique(code(pixels), return_inverse=True)
    unknown = [color for color in found.tolist() if color not in labels]
    if unknown:
        raise InputError(
            f"{path} has colours that no class has",
            got=listed([f"{color >> 16},{color >> 8 & 255},{color & 255}" for color in unknown]),
            expected="the palette of the net",
            fix="export with `class_names` that state the colours",
        )
    return np.array([labels[color] for color in found.tolist()], np.int32)[inverse].reshape(pixels.shape[:2])


def find_labels(images: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Finds the labels of images: the image file in another folder whose name without suffix is the same.

    Args:
        images: Files of images.
        folder: The folder of labels.

    Returns:
        One file for each image, in their order.

    Raises:
        InputError: There is no such folder, an image has no labels (the names are listed), or two files could be them.
    """
    folder, names = Path(folder), [Path(image) for image in images]
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", expected="a folder of index images")
    with reading(folder):
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    by_stem: dict[str, Path] = {}
    wanted = {path.stem for path in names}
    for path in files:
        if path.stem not in wanted or not is_image(path):
            continue
        if path.stem in by_stem:
            raise InputError("two files could be the labels", got=f"{by_stem[path.stem].name} and {path.name}")
        by_stem[path.stem] = path
    missing = [path.name for path in names if path.stem not in by_stem]
    if missing:
        raise InputError(
            f"{folder} lacks labels", got=f"none for {listed(missing)}", expected="a file of the same name for each"
        )
    return tuple(by_stem[path.stem] for path in names)
