"""Folders of images and labels, read with Pillow."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fcn_deploy.errors import InputError
from fcn_deploy.files import reading
from fcn_deploy.spec import Rgb

_log = logging.getLogger(__name__)
_SHOWN = 5


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, in the order of their names, read when asked for.

    Attributes:
        paths: Their files, at least one.
        size: [height, width] to resize each to, or None for as they are.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no images", expected="at least one")

    @classmethod
    def open(cls, folder: Path, *, max_images: int | None = None, size: tuple[int, int] | None = None) -> ImageFolder:
        """Lists a folder, not its sub-folders. What is an image is told by its content.

        Args:
            folder: The folder.
            max_images: Take that many, evenly spread over the sorted names.
            size: [height, width] to resize to.

        Raises:
            InputError: There is no such folder, it has no images, or a file with an image's suffix is none.
        """
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder", expected="a folder of images")
        with reading(folder):
            files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
        paths = [path for path in files if _is_image(path)]
        images = set(paths)
        others = [path.name for path in files if path not in images]
        if others:
            _log.warning("%s: not images, left out: %s", folder, _listed(others))
        if not paths:
            folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
            inside = f", and folders, which are not looked into: {_listed(folders)}" if folders else ""
            raise InputError(
                f"{folder} has no images", got=f"{len(files)} other files{inside}", expected="at least one"
            )
        if max_images is not None and max_images < len(paths):
            paths = [paths[index * len(paths) // max_images] for index in range(max_images)]
        return cls(tuple(paths), size)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yields uint8 [H, W, 3], RGB."""
        return (read_image(path, self.size) for path in self.paths)

    def every_fifth(self) -> tuple[ImageFolder, ImageFolder]:
        """Splits off every fifth image, to be held out from calibration.

        Returns:
            The images to observe, and those held out.

        Raises:
            InputError: There are fewer than five.
        """
        held_out = self.paths[4::5]
        if not held_out:
            raise InputError(
                "too few images to hold one out for the gate",
                got=len(self),
                expected="5 or more",
                fix="add images, or name a folder to judge on with --data",
            )
        observed = tuple(path for index, path in enumerate(self.paths) if index % 5 != 4)
        return replace(self, paths=observed), replace(self, paths=held_out)


def find_images(inputs: Sequence[str]) -> tuple[Path, ...]:
    """Finds the images that files, folders and patterns name, each once, in the order they are named.

    Args:
        inputs: Paths of files or folders, or patterns with `*`, `?` or `[`.

    Raises:
        InputError: One of them names nothing, or a file that is no image.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            found |= dict.fromkeys(ImageFolder.open(path).paths)
        elif path.exists():
            found[path] = None
        else:
            # A pattern may begin at the root or above this folder, which Path.glob refuses.
            matches = [Path(match) for match in sorted(glob.glob(name)) if Path(match).is_file()]  # noqa: PTH207
            if not matches:
                raise InputError(f"{name} names no image", expected="a file, a folder, or a pattern that matches files")
            found |= dict.fromkeys(matches)
    strangers = [path.name for path in found if not _is_image(path)]
    if strangers:
        raise InputError("not images", got=_listed(strangers))
    return tuple(found)


def read_image(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Reads an image as the camera held it: EXIF rotation applied, grey and palette expanded, alpha dropped.

    Args:
        path: In any format Pillow reads; 16-bit grey is scaled to 8.
        size: [height, width] to resize to, bilinearly, or None.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        InputError: The file cannot be read, is no image, or is damaged.
    """
    image = _open(path)
    if image.mode.startswith("I"):  # 16-bit grey, in 16 or 32 bits; Pillow would clip it at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise InputError(f"{path} has float pixels", expected="8 or 16 bits", fix="convert it to 8 bits")
    image.info.pop("transparency", None)  # alpha is dropped, and Pillow would warn of keeping it
    image = image.convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def read_labels(path: Path, palette: Sequence[Rgb] | None = None, ignore_index: int | None = None) -> NDArray[np.int32]:
    """Reads labels: an index image, whose pixel value or palette index is the class, or a colour mask.

    Args:
        path: The file.
        palette: The classes' RGB colours, by which colour masks are read; without it they are refused.
        ignore_index: What black stands for in a colour mask, as in CamVid's, where no class is black.

    Returns:
        int32 [H, W].

    Raises:
        InputError: The file cannot be read, is damaged, or holds a colour that is no class's.
    """
    image = _open(path)
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
    strange = [color for color in found.tolist() if color not in labels]
    if strange:
        raise InputError(
            f"{path} has colours that are no class's",
            got=_listed([f"{color >> 16},{color >> 8 & 255},{color & 255}" for color in strange]),
            expected="the palette of the net",
            fix="export with --class-names and their colours",
        )
    return np.array([labels[color] for color in found.tolist()], np.int32)[inverse].reshape(pixels.shape[:2])


def find_labels(images: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Finds the labels of images by the name without suffix.

    Args:
        images: Files of images.
        folder: Where the labels are.

    Returns:
        One file for each image, in their order.

    Raises:
        InputError: There is no such folder, or an image has no labels; the names are listed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", expected="a folder of index images")
    with reading(folder):
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    by_stem: dict[str, Path] = {}
    wanted = {path.stem for path in images}
    for path in files:
        if path.stem not in wanted or not _is_image(path):
            continue
        if path.stem in by_stem:
            raise InputError("two files could be the labels", got=f"{by_stem[path.stem].name} and {path.name}")
        by_stem[path.stem] = path
    missing = [path.name for path in images if path.stem not in by_stem]
    if missing:
        raise InputError(
            f"{folder} lacks labels", got=f"none for {_listed(missing)}", expected="a file of the same name each"
        )
    return tuple(by_stem[path.stem] for path in images)


def _is_image(path: Path) -> bool:
    try:
        with reading(path), Image.open(path):
            return True
    except InputError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
    except Exception as error:
        # Damaged and hostile files bring out nearly every type of exception; each means that this is no image to us.
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error
    if Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN:
        raise InputError(
            f"{path} is not an image",
            got=f"content that no reader knows, {path.stat().st_size} bytes",
            fix="remove or replace it",
        )
    return False


def _open(path: Path) -> Image.Image:
    try:
        with reading(path), Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except InputError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise InputError(f"{path} is not an image", got="content that no reader knows") from error
        raise InputError(f"{path} is damaged or not an image", got=error.got) from error
    except Exception as error:  # as above
        raise InputError(f"{path} is damaged or not an image", got=str(error)) from error


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
