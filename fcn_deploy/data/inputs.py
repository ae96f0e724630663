"""What has frames: finds the images, videos, cameras and streams that a user names."""

from __future__ import annotations

import functools
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fcn_deploy.data.folders import OnBad, images_of, leave_out, readable
from fcn_deploy.data.images import check_link, has_image_suffix, is_image, listed
from fcn_deploy.data.live import check_address, is_address, public_name
from fcn_deploy.data.pyav import has_av, load_av
from fcn_deploy.data.video import has_video_suffix, is_video
from fcn_deploy.errors import DependencyError, InputError, UsageError
from fcn_deploy.files import as_path, exists, is_broken_link, is_file, is_folder, reading, real_path
from fcn_deploy.text import printable

_log = logging.getLogger(__name__)
_WILD = "*?["


@dataclass
class Inputs:
    """What was found, each once, in the order in which it was named.

    Attributes:
        images: Each image, and the sub-folder in which it is, relative to the folder that was named, or to the part of
            a pattern before its first wildcard.
        videos: Likewise.
        live: The address of the camera or stream that was named; None if none was.
    """

    images: dict[Path, Path] = field(default_factory=dict)
    videos: dict[Path, Path] = field(default_factory=dict)
    live: str | None = None

    def __repr__(self) -> str:
        return printable(f"Inputs({len(self.images)} images, {len(self.videos)} videos, live {self.live})")


def find_inputs(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    max_pixels: int | None = None,
    recursive: bool = False,
    on_bad: OnBad | None = None,
    output: Path | None = None,
) -> Inputs:
    """Finds what files, folders, patterns and addresses name.

    Args:
        inputs: Paths of files or folders, patterns with `*`, `?` or `[`, where `**` stands for folders at any depth,
            or the address of a camera or a stream; one or several.
        max_pixels: Most pixels that an image may have; Pillow's limit if None.
        recursive: Whether the sub-folders of folders are searched too.
        on_bad: Told of each file that is damaged, or neither image nor video, and left out; an error if None.
        output: The folder of the results. What lies in it is left out where a folder or a pattern around it is named.

    Raises:
        DependencyError: A video, a camera or a stream is named, and PyAV is missing.
        InputError: One of them names nothing, or a file that is neither an image nor a video.
        UsageError: The address of a camera or a stream is bad, or something else is named beside it; or what is named
            is no path.
    """
    named = _named(inputs)
    live = [str(each) for each in named if is_address(each)]
    if live:
        if len(named) > 1:
            raise UsageError("a camera or a stream goes alone", got=f"{len(named)} inputs")
        check_address(live[0])
        load_av()
        return Inputs(live=live[0])
    finder = _Finder(max_pixels, recursive, on_bad, output)
    for each in named:
        finder.add(each)
    return finder.result()


def _named(inputs: object) -> list[str | os.PathLike[str]]:
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    if isinstance(several, bytes) or not isinstance(several, Iterable):
        raise UsageError(
            "bad `inputs`", got=repr(inputs), expected="a path, a pattern or an address, or a list of them"
        )
    return [each if isinstance(each, str) else as_path(each, "input") for each in several]


class _Finder:
    """Adds what is named, one after the other."""

    def __init__(self, max_pixels: int | None, recursive: bool, on_bad: OnBad | None, output: Path | None) -> None:
        self._found, self._seen = Inputs(), set[Path]()
        self._bad: set[Path] = set()
        self._max_pixels, self._recursive, self._on_bad, self._output = max_pixels, recursive, on_bad, output
        self._told = None if on_bad is None else self._tell
        self._is_image = functools.partial(is_image, max_pixels=max_pixels)

    def add(self, named: str | os.PathLike[str]) -> None:
        name, path = os.fspath(named), as_path(named, "input")
        is_pattern = any(letter in name for letter in _WILD) and not os.access(path, os.F_OK)
        if self._on_bad is None or is_pattern:
            check_link(path)
        if not is_pattern and is_folder(path):
            self._add_folder(path)
        elif not is_pattern and (exists(path) or (self._on_bad is not None and path.is_symlink())):
            self._add_files({path: Path()})
        elif matches := self._matches(name) if is_pattern else {}:
            self._add_files(matches)
        else:
            # An address of another kind may hold a password too.
            raise InputError(
                f"{public_name(name) if '://' in name else name} names no image",
                expected="a file, a folder, or a pattern that matches files",
                fix=_advice(name),
            )

    def result(self) -> Inputs:
        if not self._found.images and not self._found.videos and not self._bad:
            raise InputError("no images", got="nothing", expected="files, folders or patterns")
        return self._found

    def _add_folder(self, folder: Path) -> None:
        before = len(self._bad)
        try:
            images, videos = images_of(
                folder,
                recursive=self._recursive,
                max_pixels=self._max_pixels,
                on_bad=self._told,
                is_other=_is_video_in_folder,
                is_named=_is_named,
                without=self._output,
            )
        except InputError:
            if len(self._bad) == before:
                raise
            return  # nothing but bad files, of which the caller was told
        for path in images:
            self._keep(self._found.images, path, path.parent.relative_to(folder))
        for path in videos:
            self._keep(self._found.videos, path, path.parent.relative_to(folder))

    def _add_files(self, files: dict[Path, Path]) -> None:
        unknown = []
        for path, place in files.items():
            if readable(path, self._is_image, self._told):
                self._keep(self._found.images, path, place)
            elif path not in self._bad and readable(path, _is_video, self._told):
                self._keep(self._found.videos, path, place)
            elif path not in self._bad:
                unknown.append(path)
        if unknown and self._told is None:
            raise InputError("not images", got=listed([path.name for path in unknown]))
        for path in unknown:
            self._tell(path, InputError(f"{path} is not an image"))

    def _matches(self, pattern: str) -> dict[Path, Path]:
        """Returns the files that a pattern matches, and the sub-folder of each."""
        parts = Path(pattern).parts
        first = next(index for index, part in enumerate(parts) if any(letter in part for letter in _WILD))
        root, rest = Path(*parts[:first]), list(parts[first:])
        if rest[-1] == "**":
            rest.append("*")
        # Path.glob follows no links to folders in `**`: they can form a loop. It takes `*` for hidden files too.
        try:
            with reading(root):
                found = sorted(path for path in root.glob(str(Path(*rest))) if _is_wanted(path))
        except ValueError as error:  # such as `a**`
            raise UsageError("bad pattern", got=pattern, expected="** as the whole name of a folder") from error
        shown = [path for path in found if not _is_hidden(path.relative_to(root), rest)]
        kept = leave_out(shown, root, self._output)
        return {path: path.parent.relative_to(root) for path in kept}

    def _keep(self, kind: dict[Path, Path], path: Path, place: Path) -> None:
        same = real_path(path.parent) / path.name
        if same not in self._seen:
            self._seen.add(same)
            kind[path] = place

    def _tell(self, path: Path, error: InputError) -> None:
        self._bad.add(path)
        if self._on_bad is not None:
            self._on_bad(path, error)


def _is_video(path: Path) -> bool:
    if stat.S_ISCHR(path.stat().st_mode):
        raise InputError(f"{path} is a device", expected="a file", fix="name a camera by its number: camera:0")
    if not is_file(path):
        return False  # a pipe: FFmpeg would wait for it
    if not has_video_suffix(path) and not has_av():
        return False
    return is_video(path)


def _is_video_in_folder(path: Path) -> bool:
    if has_av():
        return is_video(path)
    if has_video_suffix(path):
        try:
            load_av()
        except DependencyError as error:
            _log.warning("%s is left out: %s", path, error)
    return False


def _is_named(path: Path) -> bool:
    return has_image_suffix(path) or has_video_suffix(path)


def _is_wanted(path: Path) -> bool:
    """Returns whether what matches a pattern is a file; a broken link with the name of one is wanted, and missed."""
    return _is_named(path) if is_broken_link(path) else is_file(path)


def _is_hidden(path: Path, pattern: list[str]) -> bool:
    """Returns whether a path has a hidden file or folder, unless the pattern asks for hidden ones."""
    asked = any(part.startswith(".") for part in pattern)
    return not asked and any(part.startswith(".") for part in path.parts)


def _advice(name: str) -> str | None:
    if name.isascii() and name.isdigit():
        return f"name a camera as camera:{name}"
    if "://" in name:
        return "streams are read from rtsp:// and rtsps:// addresses"
    return None
