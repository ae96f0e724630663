"""Reading and writing files so that a killed command leaves the old file or the new one, never a part of one."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fcn_deploy.errors import InputError

StrPath = str | os.PathLike[str]

_BLOCK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Returns the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file in hex, read in blocks.

    Raises:
        InputError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with reading(path), path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an OSError of the body, which reads `path`, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {path}", got=error.strerror or str(error)) from error


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        InputError: The file cannot be read.
    """
    with reading(path):
        return path.read_bytes()


def read_json(path: Path) -> Any:
    """Returns the JSON data of a file.

    Raises:
        InputError: The file cannot be read or is not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON", got=str(error)) from error


def check_writable(path: Path) -> None:
    """Checks, before work starts, that `path` can be created or replaced.

    Raises:
        InputError: It is a folder, a device or a pipe, or its folder is missing or not writable.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or pipe"
        raise InputError(f"cannot write {path}", got=kind, expected="a file name")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}", got=f"no folder {folder}", fix=f"create it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}", got=f"no permission to write in {folder}")


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, unless it exists.

    Raises:
        InputError: It cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}", got=error.strerror or str(error)) from error
    if not os.access(path, os.W_OK):
        raise InputError(f"cannot write in {path}", got="no permission")


@contextmanager
def output_folder(path: Path) -> Iterator[None]:
    """Creates a folder for what the body writes; if the body fails, the folders created here are removed if empty.

    Raises:
        InputError: It cannot be created or written to.
    """
    # os.access, because Path.exists raises if a parent may not be searched; make_folder has a better message for that.
    created = [folder for folder in (path, *path.parents) if not os.access(folder, os.F_OK)]
    try:
        make_folder(path)
        yield
    except BaseException:
        with suppress(OSError):  # not empty, or never created: it stays, and so do its parents
            for folder in created:
                folder.rmdir()
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` atomically: a temporary file in the same folder, fsync, rename.

    Raises:
        InputError: The path cannot be written.
    """
    check_writable(path)
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give this one the permissions that any other new file gets.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}", got=error.strerror or str(error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any, *, indent: int | None = 1) -> None:
    """Writes `data` as JSON to `path`, atomically.

    Raises:
        InputError: The path cannot be written.
    """
    write_bytes(path, (dumps_json(data, indent=indent) + "\n").encode())


def dumps_json(data: Any, *, indent: int | None = 1) -> str:
    """Returns `data` as JSON; numbers that JSON does not have (NaN and infinities) become null."""
    return json.dumps(_finite(data), indent=indent, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
