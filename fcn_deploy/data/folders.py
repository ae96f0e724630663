"""Folders of images."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.data.images import check_link, has_image_suffix, is_image, listed, read_image
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, is_folder, reading, real_path
from fcn_deploy.text import printable

_log = logging.getLogger(__name__)

# Told of a file that cannot be read as an image, and why.
OnBad = Callable[[Path, InputError], None]

# What folders of images and of ground truth are called, in lower case.
_IMAGES = ("images", "image", "imgs", "img", "frames", "jpegimages", "leftimg8bit", "rgb", "data")
_LABELS = (
    *("labels", "label", "masks", "mask", "annotations", "gt", "gtfine", "groundtruth", "ground_truth", "truth"),
    *("segmentationclass", "annot", "targets"),
)


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, in the order of their names; each is read when it is asked for.

    Attributes:
        paths: Their files, at least one.
        size: [height, width] to resize each image to; None to keep the size it has.
        root: The folder in which they were searched, if its sub-folders were searched too; else None.

    Raises:
        InputError: There are no paths.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int] | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no images", expected="at least one")

    def __repr__(self) -> str:
        size = "" if self.size is None else f", resized to {self.size[0]}x{self.size[1]}"
        return printable(f"ImageFolder({self.root or self.paths[0].parent}, {len(self.paths)} images{size})")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, as seen from `root` if their sub-folders were searched."""
        if self.root is None:
            return tuple(path.name for path in self.paths)
        return tuple(path.relative_to(self.root).as_posix() for path in self.paths)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        max_images: int | None = None,
        size: tuple[int, int] | None = None,
        recursive: bool = False,
        max_pixels: int | None = None,
        on_bad: OnBad | None = None,
    ) -> ImageFolder:
        """Lists the images of a folder. The content of a file decides, not its suffix.

        Args:
            folder: The folder.
            max_images: Take at most so many images, evenly spread over the sorted names; None for all.
            size: [height, width] to resize each image to; None to keep the size it has.
            recursive: Whether its sub-folders are searched too, and theirs.
            max_pixels: Most pixels that an image may have; Pillow's limit if None.
            on_bad: Told of each file that cannot be read as an image, and left out; such a file is an error if None.

        Raises:
            InputError: There is no such folder, it has no images, a file with the suffix of an image is not one, or a
                symbolic link is broken.
        """
        folder = as_path(folder)
        paths, _ = images_of(folder, recursive=recursive, max_pixels=max_pixels, on_bad=on_bad)
        if max_images is not None:
            paths = _spread(paths, max_images)
        return cls(tuple(paths), size, folder if recursive else None)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yields each image, uint8 [H, W, 3], RGB."""
        return (read_image(path, self.size) for path in self.paths)

    def spread(self, count: int) -> ImageFolder:
        """Returns at most `count` of the images, evenly spread over the sorted names."""
        return replace(self, paths=tuple(_spread(self.paths, count)))

    def every_fifth(self) -> tuple[ImageFolder, ImageFolder]:
        """Holds every fifth image out from calibration.

        Returns:
            The images to observe, and those that are held out.

        Raises:
            InputError: There are fewer than five images.
        """
        held_out = self.paths[4::5]
        if not held_out:
            raise InputError(
                "too few images to hold one out for the gate",
                got=len(self),
                expected="5 or more",
                fix="add images, or name a folder of other images with `data`",
            )
        observed = tuple(path for index, path in enumerate(self.paths) if index % 5 != 4)
        return replace(self, paths=observed), replace(self, paths=held_out)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    return list(paths) if count >= len(paths) else [paths[index * len(paths) // count] for index in range(count)]


def images_of(
    folder: Path,
    *,
    recursive: bool = False,
    max_pixels: int | None = None,
    on_bad: OnBad | None = None,
    is_other: Callable[[Path], bool] = lambda path: False,
    is_named: Callable[[Path], bool] = has_image_suffix,
    without: Path | None = None,
) -> tuple[list[Path], list[Path]]:
    """Lists the images of a folder, and its files of another kind that is asked for.

    Args:
        folder: The folder.
        recursive: Whether its sub-folders are searched too, and theirs.
        max_pixels: Most pixels that an image may have; Pillow's limit if None.
        on_bad: Told of each file that cannot be read as what it should be, and left out; an error if None.
        is_other: Returns whether a file that is not an image is of the other kind.
        is_named: Returns whether a path has the name of a file that is looked for: a broken link with it is bad.
        without: A folder inside it whose files are left out.

    Raises:
        InputError: As `ImageFolder.open`; and one for a folder that has neither images nor files of the other kind.
    """
    check_link(folder)
    if not is_folder(folder):
        raise InputError(f"{folder} is not a folder", expected="a folder of images")
    pair = image_and_label_folders(folder)
    if pair is not None and recursive:
        raise _holds_both(folder, *pair)
    told: set[Path] = set()

    def tell(path: Path, error: InputError) -> None:
        told.add(path)
        if on_bad is not None:
            on_bad(path, error)

    listener = None if on_bad is None else tell
    files = list_files(folder, recursive=recursive, on_bad=listener, is_named=is_named)
    files = leave_out(files, folder, without)
    checked = functools.partial(is_image, max_pixels=max_pixels)
    paths = [path for path in files if readable(path, checked, listener)]
    known = {*paths, *told}
    others = [path for path in files if path not in known and readable(path, is_other, listener)]
    if pair is not None and not paths and not others:
        raise _holds_both(folder, *pair)
    known |= {*others, *told}
    unknown = [path.name for path in files if path not in known]
    if unknown:
        _log.warning("%s: not images, left out: %s", folder, listed(unknown))
    if not paths and not others:
        folders = [] if recursive else sorted(path.name for path in folder.iterdir() if path.is_dir())
        inside = f", and folders, which are not searched: {listed(folders)}" if folders else ""
        raise InputError(
            f"{folder} has no images",
            got=f"{len(files)} other files{inside}",
            expected="at least one",
            fix="name the folder that holds the images, or search all with `recursive=True`" if folders else None,
        )
    return paths, others


def leave_out(files: list[Path], root: Path, without: Path | None) -> list[Path]:
    """Returns those of the files found under `root` that are not in the folder `without`, which lies deeper.

    So the results of a run do not become the inputs of the next one.
    """
    if without is None or real_path(root) not in real_path(without).parents:
        return files
    inside = real_path(without)
    kept = [path for path in files if inside not in real_path(path).parents]
    if len(kept) < len(files):
        _log.warning("%s: left out, because results are written there", without)
    return kept


def list_files(
    folder: Path,
    *,
    recursive: bool = False,
    on_bad: OnBad | None = None,
    is_named: Callable[[Path], bool] = has_image_suffix,
) -> list[Path]:
    """Returns the files of a folder by name, without hidden ones.

    Args:
        folder: The folder.
        recursive: Whether its sub-folders are searched too. Links to folders are not followed: they can form a loop.
        on_bad: Told of broken links to images, which are an error if None.
        is_named: Returns whether a path has the name of an image, or of what else is looked for.

    Raises:
        InputError: A folder cannot be read, or the link to an image is broken.
    """
    with reading(folder):
        found = sorted(path for path in folder.iterdir() if path.name[0] != ".")
        files = [path for path in found if path.is_file()]
        links = {path for path in found if path.is_symlink()}
        folders = [path for path in found if recursive and path not in links and path.is_dir()]
    for path in found:
        if path in links and is_named(path):
            readable(path, check_link, on_bad)
    for path in folders:
        files += list_files(path, recursive=True, on_bad=on_bad, is_named=is_named)
    return sorted(files)


def image_and_label_folders(folder: Path) -> tuple[Path, Path] | None:
    """Returns the folder of images and that of ground truth that a folder holds; None if it does not hold both."""
    with reading(folder):
        inside = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    images = next((inside[name] for name in _IMAGES if name in inside), None)
    labels = next((inside[name] for name in _LABELS if name in inside), None)
    return None if images is None or labels is None else (images, labels)


def _holds_both(folder: Path, images: Path, labels: Path) -> InputError:
    return InputError(
        f"{folder} holds a folder of images and one of ground truth",
        got=f"{images.name}/ and {labels.name}/",
        expected="a folder of images",
        fix=f"name {images}; the ground truth, where there is `labels`, is {labels}",
    )


def readable(path: Path, check: Callable[[Path], bool | None], on_bad: OnBad | None) -> bool:
    """Returns what `check` says about a file; of one that it refuses, False, if `on_bad` is told instead."""
    try:
        return bool(check(path))
    except InputError as error:
        if on_bad is None:
            raise
        on_bad(path, error)
        return False
