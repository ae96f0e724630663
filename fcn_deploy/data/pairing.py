"""Which file of ground truth belongs to which image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fcn_deploy.data.folders import image_and_label_folders, list_files
from fcn_deploy.data.images import check_link, is_image, listed
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, is_folder


def find_labels(
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    suffix: str = "",
    recursive: bool = False,
    root: Path | None = None,
) -> tuple[Path, ...]:
    """Finds the labels of images: the image file in another folder whose name without suffix is the same.

    Args:
        images: Files of images.
        folder: The folder of labels.
        suffix: What the names of labels have after those of the images, as `_gtFine_labelTrainIds`. It may also stand
            in place of an ending that all images share, as Cityscapes' `_leftImg8bit`.
        recursive: Whether sub-folders of labels are searched too. A file of the same relative folder comes first, then
            one whose name occurs once.
        root: Folder that holds the images and their sub-folders; None for the folder of each image.

    Returns:
        One file for each image, in their order.

    Raises:
        InputError: There is no such folder, an image has no labels (the names are listed), or two files could be them.
    """
    folder, names = as_path(folder), [Path(image) for image in images]
    check_link(folder)
    if not is_folder(folder):
        raise InputError(f"{folder} is not a folder", expected="a folder of index images")
    files = list_files(folder, recursive=recursive)
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    found: list[Path | None] = []
    for ending in ("", *_endings(names)) if suffix else ("",):
        found = _paired(names, ending, suffix, by_stem, folder, root)
        if None not in found:
            break
    else:
        found = _paired(names, "", suffix, by_stem, folder, root)
    missing = [path.name for path, labels in zip(names, found, strict=True) if labels is None]
    if missing:
        raise _no_labels(folder, names, missing, files, suffix, recursive)
    chosen = [path for path in found if path is not None]
    if len(set(chosen)) < len(chosen):
        twice = next(path for path in chosen if chosen.count(path) > 1)
        pair = [str(image) for image, labels in zip(names, chosen, strict=True) if labels == twice]
        raise InputError(f"{twice} would be the labels of several images", got=listed(pair))
    return tuple(chosen)


def _endings(images: Sequence[Path]) -> list[str]:
    """Returns the endings from an underscore on that the names of all images share, shortest first.

    A number is no ending, but what tells images apart, also if there is one image only.
    """
    stem = images[0].stem
    endings = [stem[index:] for index in range(len(stem) - 1, 0, -1) if stem[index] == "_"]
    endings = [ending for ending in endings if not any(part.isdecimal() for part in ending.split("_"))]
    return [ending for ending in endings if all(path.stem.endswith(ending) for path in images)]


def _paired(
    images: Sequence[Path], ending: str, suffix: str, by_stem: Mapping[str, list[Path]], folder: Path, root: Path | None
) -> list[Path | None]:
    found: list[Path | None] = []
    for image in images:
        stem = image.stem.removesuffix(ending) + suffix
        inside = image.parent.relative_to(root) if root is not None and image.is_relative_to(root) else Path()
        candidates = [path for path in by_stem.get(stem, ()) if is_image(path)]
        near = [path for path in candidates if path.parent == folder / inside]
        chosen = near or candidates
        if len(chosen) > 1:
            got = " and ".join(str(path.relative_to(folder)) for path in chosen[:2])
            raise InputError(f"two files in {folder} could be the labels of {image.name}", got=got)
        found.append(chosen[0] if chosen else None)
    return found


def _no_labels(
    folder: Path, images: Sequence[Path], missing: Sequence[str], files: Sequence[Path], suffix: str, recursive: bool
) -> InputError:
    fix, stems = None, {Path(name).stem for name in missing}
    pair = image_and_label_folders(folder)
    if pair is not None:
        fix = f"{folder} holds {pair[0].name}/ and {pair[1].name}/: name {pair[1]} with `labels`"
    elif other := _suffix_that_pairs(images, files):
        fix = f'the names have something more: add `label_suffix="{other}"`'
    elif not files and not recursive and any(path.is_dir() for path in folder.iterdir()):
        fix = "it has folders, which are not searched: name one of them, or search all with `recursive=True`"
    elif suffix:
        fix = "check `label_suffix`"
    elif outlines := [path.name for path in files if path.stem in stems and not is_image(path)]:
        fix = f"{outlines[0]} is no image: outlines of objects have to be drawn into index images, one for each image"
    return InputError(
        f"{folder} lacks labels",
        got=f"none for {listed(missing)}",
        expected="a file of the same name" + (f" and {suffix}" if suffix else "") + " for each",
        fix=fix,
    )


def _unlikely(stem: str) -> tuple[bool, bool, int, str]:
    """Sorts names of labels so that train ids come first, and pictures for people and instance ids last."""
    name = stem.lower()
    return not name.endswith("trainids"), any(word in name for word in ("color", "colour", "instance")), len(stem), stem


def _suffix_that_pairs(images: Sequence[Path], files: Sequence[Path]) -> str | None:
    """Returns a suffix that gives each image a file of labels; None if no suffix does."""
    stems = {path.stem for path in files}
    for ending in ("", *_endings(images)):
        first = images[0].stem.removesuffix(ending)
        for stem in sorted(stems, key=_unlikely):
            suffix = stem.removeprefix(first)
            if (
                stem.startswith(first)
                and suffix
                and not suffix[0].isdecimal()  # that would be another image: 1 and 10
                and all(f"{i.stem.removesuffix(ending)}{suffix}" in stems for i in images)
            ):
                return suffix
    return None
