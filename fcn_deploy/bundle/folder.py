"""The folder of a bundle: written as a whole, and checked to the last byte before anything in it is used.

The hashes find what was damaged, mixed up or changed on the way. They do not say who made the bundle: those who can
change all of its files can change the hashes too.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fcn_deploy.bundle.manifest import (
    EXPECTED,
    MANIFEST,
    MANIFEST_HASH,
    PRECISIONS,
    RANGES,
    Bundle,
    FileEntry,
    graph_file,
)
from fcn_deploy.errors import ArtifactError, FcnDeployError, InputError
from fcn_deploy.files import (
    dumps_json,
    exists,
    is_folder,
    missing,
    read_bytes,
    reading,
    sha256_bytes,
    sha256_file,
    write_bytes,
    writing,
)

# The largest manifest that is read. That of a net of 1,000 layers and classes has about 0.2 MB.
_LARGEST_MANIFEST = 16 << 20
# The largest file: what protobuf, and so the ONNX parser of TensorRT, can hold.
_LARGEST_FILE = 2 << 30
# What may be in a bundle, of all precisions.
_ALL_NAMES = {MANIFEST, MANIFEST_HASH, EXPECTED, RANGES, *map(graph_file, PRECISIONS)}
_FIX = "copy the whole folder again from the machine that made it, or make it again with fcn-deploy deploy"


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle in which every byte was checked.

    Attributes:
        folder: Where it is.
        manifest: What it says.
        sha256: Of its manifest, in hex, which names the hashes of all other files.
    """

    folder: Path
    manifest: Bundle
    sha256: str

    def read(self, name: str) -> bytes:
        """Returns the content of a file, which is checked again: it is what was checked, or an error.

        Raises:
            ArtifactError: It has changed since the bundle was checked.
            InputError: It cannot be read.
        """
        data = read_bytes(self.folder / name)
        if sha256_bytes(data) != self.manifest.files[name].sha256:
            raise ArtifactError(f"{self.folder / name} has changed since it was checked", fix="run it again")
        return data


def check_replaceable(folder: Path) -> None:
    """Checks, before work starts, that a bundle can be written to a folder: it is missing, empty, or a bundle.

    Raises:
        InputError: It is something else, which would be lost; or its parent cannot be written to.
    """
    if not exists(folder) and not folder.is_symlink():
        return
    if folder.is_symlink() or not is_folder(folder):
        raise InputError(f"cannot write the bundle {folder}", got="something else", fix="remove it")
    others = sorted(_names(folder) - _ALL_NAMES)
    if others:
        got = f"a folder that has {others[0]}"
        raise InputError(f"cannot write the bundle {folder}", got=got, fix="move it away")


def remove_bundle(folder: Path) -> bool:
    """Removes a bundle of an earlier deployment; returns whether there was one. A folder with other files stays."""
    if folder.is_symlink() or not is_folder(folder):
        return False
    names = _names(folder)
    if MANIFEST not in names or not names <= _ALL_NAMES:
        return False
    shutil.rmtree(folder)
    return True


def _names(folder: Path) -> set[str]:
    with reading(folder):
        return {path.name for path in folder.iterdir()}


def write_bundle(folder: Path, manifest: Bundle, contents: Mapping[str, bytes]) -> CheckedBundle:
    """Writes a bundle: into a folder beside it first, which then takes its place.

    Args:
        folder: Where it goes; a bundle that is there is replaced.
        manifest: What it says, without sizes and hashes.
        contents: Its files, by name.

    Raises:
        InputError: It cannot be written, or a file is too large.
    """
    assert set(contents) == manifest.names
    for name, data in contents.items():
        if len(data) >= _LARGEST_FILE:
            raise InputError(f"{name} is too large for a bundle", got=f"{len(data)} bytes", expected="less than 2 GiB")
    files = {name: FileEntry(len(data), sha256_bytes(data)) for name, data in sorted(contents.items())}
    manifest = replace(manifest, files=files)
    text = (dumps_json(manifest.to_json()) + "\n").encode()
    digest = sha256_bytes(text)
    check_replaceable(folder)
    temporary = None
    try:
        with writing(folder):
            temporary = Path(tempfile.mkdtemp(prefix=".fcn-deploy.", suffix=".tmp", dir=folder.parent))
            whole = temporary / "bundle"  # not `temporary` itself, which is private to this user
            whole.mkdir()
            for name, data in {**contents, MANIFEST: text, MANIFEST_HASH: _hash_line(digest)}.items():
                write_bytes(whole / name, data)
            _take_place(whole, folder, temporary / "old")
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return CheckedBundle(folder, manifest, digest)


def _take_place(whole: Path, folder: Path, old: Path) -> None:
    """Puts a bundle in the place of one that may be there; if that fails or is interrupted, the old one stays.

    Args:
        whole: The bundle.
        folder: Its place.
        old: Where the earlier content goes, on the same file system.
    """
    try:
        if exists(folder):
            folder.rename(old)
        whole.rename(folder)
    except BaseException:
        if exists(old) and not exists(folder):
            old.rename(folder)
        raise


def check_bundle(folder: Path) -> CheckedBundle:
    """Checks every file of a bundle: first the hash of the manifest, then names, sizes and hashes of the others.

    Nothing but the manifest is parsed here, and that only if its own hash is right.

    Raises:
        ArtifactError: A file is missing, added or changed; the manifest is malformed or of an unknown format.
        InputError: There is no such folder, or a file cannot be read.
    """
    if not is_folder(folder):
        got = "a file" if exists(folder) else missing(folder)
        raise InputError(f"{folder} is not a bundle", got=got, expected="the folder that fcn-deploy deploy wrote")
    with reading(folder):
        found = {path.name: path.lstat() for path in folder.iterdir()}
    if MANIFEST not in found:
        got = f"no {MANIFEST}"
        raise InputError(f"{folder} is not a bundle", got=got, expected="the folder that fcn-deploy deploy wrote")
    for name, status in found.items():
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{folder / name} is not a plain file", fix=_FIX)
    text, digest = _checked_manifest(folder, found)
    try:
        manifest = Bundle.from_json(json.loads(text))
    except (FcnDeployError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{folder / MANIFEST}: {error}") from error
    _check_files(folder, manifest, found)
    return CheckedBundle(folder, manifest, digest)


def _checked_manifest(folder: Path, found: Mapping[str, os.stat_result]) -> tuple[bytes, str]:
    path = folder / MANIFEST
    if MANIFEST_HASH not in found:
        raise ArtifactError(f"{folder} lacks {MANIFEST_HASH}", fix=_FIX)
    if found[MANIFEST].st_size > _LARGEST_MANIFEST:
        raise ArtifactError(f"{path} is too large", got=f"{found[MANIFEST].st_size} bytes", fix=_FIX)
    text = read_bytes(path)
    digest = sha256_bytes(text)
    stated = found[MANIFEST_HASH].st_size == len(_hash_line(digest)) and read_bytes(folder / MANIFEST_HASH)
    if stated != _hash_line(digest):
        raise ArtifactError(
            f"{path} is not the file that {MANIFEST_HASH} describes", got=f"sha256 {digest[:12]}...", fix=_FIX
        )
    return text, digest


def _check_files(folder: Path, manifest: Bundle, found: Mapping[str, os.stat_result]) -> None:
    if manifest.files.keys() != manifest.names:
        raise ArtifactError(
            f"{folder / MANIFEST} lists other files than a bundle has",
            got=", ".join(sorted(manifest.files)) or "none",
            expected=", ".join(sorted(manifest.names)),
        )
    present = found.keys() - {MANIFEST, MANIFEST_HASH}
    lacking, added = sorted(manifest.names - present), sorted(present - manifest.names)
    if lacking:
        raise ArtifactError(f"{folder} lacks {', '.join(lacking)}", fix=_FIX)
    if added:
        raise ArtifactError(
            f"{folder} has files that {MANIFEST} does not list", got=", ".join(added), fix=f"remove them, or {_FIX}"
        )
    for name, entry in manifest.files.items():
        size = found[name].st_size
        if entry.bytes >= _LARGEST_FILE:
            raise ArtifactError(f"{folder / MANIFEST} states an impossible size for {name}", got=f"{entry.bytes} bytes")
        if size != entry.bytes:
            got, expected = f"{size} bytes", f"{entry.bytes} bytes"
            raise ArtifactError(f"{folder / name} has another size than {MANIFEST} says", got=got, expected=expected)
    for name, entry in manifest.files.items():
        digest = sha256_file(folder / name)
        if digest != entry.sha256:
            raise ArtifactError(
                f"{folder / name} is not the file that {MANIFEST} describes",
                got=f"sha256 {digest[:12]}...",
                expected=f"{entry.sha256[:12]}...",
                fix=_FIX,
            )


def _hash_line(digest: str) -> bytes:
    return f"{digest}  {MANIFEST}\n".encode()
