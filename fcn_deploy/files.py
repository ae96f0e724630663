"""Reading and writing files so that a killed command leaves the old file or the new one, never a part of one."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fcn_deploy.errors import InputError, UsageError

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


def as_path(path: StrPath, what: str = "path") -> Path:
    """Returns a path that a caller named.

    Args:
        path: The path.
        what: What the error calls it.

    Raises:
        InputError: It holds a NUL character, which no path can.
        UsageError: It is empty, which Python would take for the current folder, or is not a path.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise UsageError(f"bad {what}", got=repr(path), expected="text or a path")
    if not text:
        raise UsageError(f"an empty {what}", expected="the name of a file or folder")
    if "\0" in text:
        raise InputError(f"bad {what}", got=repr(text), expected="a path without NUL characters")
    return Path(path)


def real_path(path: Path) -> Path:
    """Returns a path without symbolic links and `..`; what cannot be followed, such as a loop, stays as it is."""
    return Path(os.path.realpath(path))


def is_file(path: Path) -> bool:
    """Returns whether a path is a regular file, or a link to one; a pipe or a device is not a regular file.

    Raises:
        InputError: That cannot be found out: the name is too long, a link leads to itself, a folder of it is a file,
            or may not be searched.
    """
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_folder(path: Path) -> bool:
    """Returns whether a path is a folder, or leads to one.

    Raises:
        InputError: As for `is_file`.
    """
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def exists(path: Path) -> bool:
    """Returns whether there is something at a path; a link that leads nowhere is nothing.

    Raises:
        InputError: As for `is_file`.
    """
    return _status(path) is not None


def _status(path: Path) -> os.stat_result | None:
    with reading(path):
        return _stat(path)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def check_file(path: Path, *, pipe: bool = True) -> None:
    """Checks that there is something at a path that can be read as a file.

    Args:
        path: The path.
        pipe: Whether a pipe or a device will do.

    Raises:
        InputError: It is missing, is a folder, cannot be reached, or may not be read.
    """
    status = _status(path)
    if status is None:
        raise InputError(f"cannot read {path}", got=missing(path))
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"cannot read {path}", got="a folder")
    if not pipe and not stat.S_ISREG(status.st_mode):
        raise InputError(f"cannot read {path}", got="a device or pipe", expected="a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"cannot read {path}", got="no permission")


def is_broken_link(path: Path) -> bool:
    """Returns whether a path is a symbolic link to nothing that can be reached, such as itself."""
    try:
        return path.is_symlink() and not os.access(path, os.F_OK)
    except OSError:  # the path of the link itself cannot be followed
        return False


def missing(path: Path) -> str:
    """Says why there is nothing at a path."""
    return f"a broken symbolic link, to {path.readlink()}" if is_broken_link(path) else "no such file"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an OSError of the body, which reads `path`, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {path}", got=_reason(error)) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the body, which writes `path`, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}", got=_reason(error)) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


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
    folder = path.parent
    with writing(path):
        status, around = _stat(path), _stat(folder)
    if status is not None and not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise InputError(f"cannot write {path}", got=kind, expected="a file name")
    if around is None:
        raise InputError(f"cannot write {path}", got=f"no folder {folder}", fix=f"create it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}", got=f"no permission to write in {folder}")


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, unless it exists.

    Raises:
        InputError: It cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}", got=_reason(error)) from error
    if not os.access(path, os.W_OK | os.X_OK):
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
        for folder in created:
            with suppress(OSError):  # not empty, or never created
                folder.rmdir()
        raise


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Makes a folder for the files of the body, where the system keeps temporary files, and removes it after.

    Raises:
        InputError: It cannot be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="fcn-deploy-")
    except OSError as error:
        fix = "set the environment variable TMPDIR to a folder with room for three times the weights"
        raise InputError("cannot make a folder for temporary files", got=_reason(error), fix=fix) from error
    with folder as name:
        yield Path(name)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps others that call this out of a folder while the body runs, even if they are other processes.

    Raises:
        InputError: Another is writing into it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nobody is kept out
        yield
        return
    with reading(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "wait until it has ended, or name another folder"
            raise InputError(f"another process is writing into {folder}", fix=fix) from error
        except OSError:  # file systems of networks may not have locks
            pass
        yield
    finally:
        os.close(descriptor)  # which unlocks it; so does the end of the process, however it ends


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Writes a file atomically: the body writes a temporary one in the same folder, which then takes its place.

    If the body fails, the temporary file is removed, and the file at `path`, if there is one, stays as it is.

    Yields:
        The temporary file, empty and open for writing.

    Raises:
        InputError: The path cannot be written.
    """
    check_writable(path)
    temporary = None
    try:
        with writing(path):
            # Not a part of the file's own name, which may be as long as a name can be.
            descriptor, name = tempfile.mkstemp(prefix=".fcn-deploy.", suffix=".tmp", dir=path.parent)
            temporary = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes private files; give this one the permissions that any other new file gets.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` atomically: a temporary file in the same folder, fsync, rename.

    Raises:
        InputError: The path cannot be written.
    """
    with replacing(path) as file:
        file.write(data)


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
