"""Folders of images."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.data.images import is_image, listed, read_image
from fcn_deploy.errors import InputError
from fcn_deploy.files import reading

_log = logging.getLogger(__name__)


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
        paths = [path for path in files if is_image(path)]
        images = set(paths)
        others = [path.name for path in files if path not in images]
        if others:
            _log.warning("%s: not images, left out: %s", folder, listed(others))
        if not paths:
            folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
            inside = f", and folders, which are not looked into: {listed(folders)}" if folders else ""
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
    strangers = [path.name for path in found if not is_image(path)]
    if strangers:
        raise InputError("not images", got=listed(strangers))
    return tuple(found)
