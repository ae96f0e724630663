"""Folders of images."""

from __future__ import annotations

import functools
import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.data.images import check_link, has_image_suffix, is_image, listed, read_image
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, exists, is_file, is_folder, reading
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
        files = list_files(folder, recursive=recursive, on_bad=listener)
        checked = functools.partial(is_image, max_pixels=max_pixels)
        paths = [path for path in files if _readable(path, checked, listener)]
        if pair is not None and not paths:
            raise _holds_both(folder, *pair)
        known = {*paths, *told}
        others = [path.name for path in files if path not in known]
        if others:
            _log.warning("%s: not images, left out: %s", folder, listed(others))
        if not paths:
            folders = [] if recursive else sorted(path.name for path in folder.iterdir() if path.is_dir())
            inside = f", and folders, which are not searched: {listed(folders)}" if folders else ""
            raise InputError(
                f"{folder} has no images",
                got=f"{len(files)} other files{inside}",
                expected="at least one",
                fix="name the folder that holds the images, or search all with `recursive=True`" if folders else None,
            )
        if max_images is not None and max_images < len(paths):
            paths = [paths[index * len(paths) // max_images] for index in range(max_images)]
        return cls(tuple(paths), size, folder if recursive else None)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yields each image, uint8 [H, W, 3], RGB."""
        return (read_image(path, self.size) for path in self.paths)

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


def list_files(folder: Path, *, recursive: bool = False, on_bad: OnBad | None = None) -> list[Path]:
    """Returns the files of a folder by name, without hidden ones.

    Args:
        folder: The folder.
        recursive: Whether its sub-folders are searched too. Links to folders are not followed: they can form a loop.
        on_bad: Told of broken links to images, which are an error if None.

    Raises:
        InputError: A folder cannot be read, or the link to an image is broken.
    """
    with reading(folder):
        found = sorted(path for path in folder.iterdir() if path.name[0] != ".")
        files = [path for path in found if path.is_file()]
        links = {path for path in found if path.is_symlink()}
        folders = [path for path in found if recursive and path not in links and path.is_dir()]
    for path in found:
        if path in links and has_image_suffix(path):
            _readable(path, check_link, on_bad)
    for path in folders:
        files += list_files(path, recursive=True, on_bad=on_bad)
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


def _readable(path: Path, check: Callable[[Path], bool | None], on_bad: OnBad | None) -> bool:
    """Returns what `check` says about a file; of one that it refuses, False, if `on_bad` is told instead."""
    try:
        return bool(check(path))
    except InputError as error:
        if on_bad is None:
            raise
        on_bad(path, error)
        return False


def find_images(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    max_pixels: int | None = None,
    recursive: bool = False,
    on_bad: OnBad | None = None,
) -> dict[Path, Path]:
    """Finds the images that files, folders and patterns name, each once, in the order in which they are named.

    Args:
        inputs: Paths of files or folders, or patterns with `*`, `?` or `[`; one or several.
        max_pixels: Most pixels that an image may have; Pillow's limit if None.
        recursive: Whether the sub-folders of folders are searched too.
        on_bad: Told of each file that is no image or cannot be read, and left out; such a file is an error if None.

    Returns:
        Each image, and the sub-folder in which it is, relative to the folder that was named.

    Raises:
        InputError: One of them names nothing, or a file that is not an image.
    """
    found: dict[Path, Path] = {}
    bad: list[Path] = []

    def tell(path: Path, error: InputError) -> None:
        bad.append(path)
        if on_bad is not None:
            on_bad(path, error)

    told = None if on_bad is None else tell
    for each in [inputs] if isinstance(inputs, str | os.PathLike) else inputs:
        name, path = os.fspath(each), as_path(each, "input")
        is_pattern = any(letter in name for letter in "*?[") and not os.access(path, os.F_OK)
        if on_bad is None or is_pattern:
            check_link(path)
        if not is_pattern and is_folder(path):
            images = _images_of(path, max_pixels, recursive, bad, told)
            found |= {image: image.parent.relative_to(path) for image in images}
        elif not is_pattern and (exists(path) or (on_bad is not None and path.is_symlink())):
            found[path] = Path()
        else:
            # Not Path.glob: it refuses patterns that begin at the root, and patterns with `..`.
            matches = [Path(match) for match in sorted(glob.glob(name)) if is_file(Path(match))]  # noqa: PTH207
            if not matches:
                raise InputError(f"{name} names no image", expected="a file, a folder, or a pattern that matches files")
            found |= dict.fromkeys(matches, Path())
    checked = functools.partial(is_image, max_pixels=max_pixels)
    readable = {path: place for path, place in found.items() if _readable(path, checked, told)}
    others = [path for path in found if path not in readable and path not in bad]
    if others and told is None:
        raise InputError("not images", got=listed([path.name for path in others]))
    for path in others:
        tell(path, InputError(f"{path} is not an image"))
    if not readable and not bad:
        raise InputError("no images", got="nothing", expected="files, folders or patterns")
    return readable


def _images_of(
    folder: Path, max_pixels: int | None, recursive: bool, bad: Sequence[Path], told: OnBad | None
) -> tuple[Path, ...]:
    """Returns the images of a folder; none is no error if `told` was told of bad ones."""
    before = len(bad)
    try:
        return ImageFolder.open(folder, max_pixels=max_pixels, recursive=recursive, on_bad=told).paths
    except InputError:
        if len(bad) == before:
            raise
        return ()
