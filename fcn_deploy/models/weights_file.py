"""Reads weights from a file, whatever the file is: no code of the file runs, and what it is not is called by name."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from fcn_deploy.artifacts.foreign import START, TRUNCATED, foreign, is_text
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.files import reading
from fcn_deploy.models.pickle_scan import PickleScan

if TYPE_CHECKING:
    from torch import Tensor

_JOIN = "join the parts in your own code, and save them in one file by torch.save or save_file"
_SAVE = "save model.state_dict()"
# The pickles before the storages in files of torch before 1.6: magic number, protocol, machine, content, keys.
_OLD_PICKLES = 5
# Of a zip's directory and of a pickle, in bytes; those of the largest nets have a few MB.
_MAX_DIRECTORY = 16 << 20
_MAX_PICKLE = 64 << 20
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"  # the first byte of a pickle; the second is its protocol
# What nearly every checkpoint names; torch knows these.
_KNOWN = re.compile(r"collections\.OrderedDict|torch\.\w+Storage|torch\._utils\._rebuild_(tensor_v2|parameter)")


class Unread:
    """Stands for an object of a class that is not read from files: its code does not run, its state is not kept."""

    def __new__(cls, *_: object, **__: object) -> Unread:
        """Makes one from anything."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_content(path: Path) -> tuple[Any, ModelSpec | None]:
    """Reads a `.pth` or `.safetensors` file, by its content rather than its name.

    Returns:
        What `torch.load(weights_only=True)` gives, with an `Unread` for each object of a class that it does not know;
        or the tensors of a safetensors file. And the spec in the file, or None.

    Raises:
        InputError: The file cannot be read, is no checkpoint (the error says what it is), needs code to load, or would
            take more memory than twice its size.
    """
    size = _size(path)
    kind = _kind(path, size)
    if kind == "safetensors":
        return _read_safetensors(path)
    scan = PickleScan(path, size)
    if kind == "zip":
        _check_archive(path, size, scan)
    else:
        with path.open("rb") as file:
            for _ in range(_OLD_PICKLES):
                if not scan.scan(file):
                    break
    return _load(path, scan.modules), None


def check_weights_file(path: Path) -> None:
    """Checks, before torch is imported, that a file may be a checkpoint. A pipe is not read.

    Raises:
        InputError: The file cannot be read, or its first bytes are those of something else; the message says of what.
    """
    with reading(path):
        if path.is_file():
            _kind(path, _size(path))


def _kind(path: Path, size: int) -> Literal["safetensors", "zip", "pickle"]:
    """Returns what a file is, judged by its first bytes; one that is no checkpoint is refused."""
    with reading(path), path.open("rb") as file:
        start = file.read(START)
    if start.lstrip()[:1] == b"{" and is_text(start) and b'"weight_map"' in start + _end(path):
        _refuse(path, "the index of weights that are split over several files", _JOIN)
    found = foreign(start, "checkpoint")
    if found is not None:
        _refuse(path, found.kind, found.fix)
    if start.startswith(_ZIP):
        return "zip"
    if _is_safetensors(start, size) or (path.suffix == ".safetensors" and start[:1] != _PICKLE):
        return "safetensors"
    _check_pickle(path, start)
    return "pickle"


def _size(path: Path) -> int:
    with reading(path):
        if path.is_dir():
            raise InputError(f"cannot read {path}", got="a folder", expected="a checkpoint, .pth or .safetensors")
        return path.stat().st_size


def _end(path: Path) -> bytes:
    """Returns the end of a file, where an index may say what it is."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        return file.read()


def _check_pickle(path: Path, start: bytes) -> None:
    """Refuses what is not a pickle as torch writes it, before torch says so in its own words."""
    if start[:1] == _PICKLE:
        if start[1:2] > b"\x03":
            _refuse(
                path,
                f"a pickle of protocol {start[1]}, not one of torch.save; code from a checkpoint is never run",
                "if you trust the file, load it in your own code, make its arrays tensors, and save them by torch.save",
            )
        return
    if start[:1] == b"P" and _ZIP.startswith(start):
        _refuse(path, f"the first {len(start)} bytes of a zip archive", TRUNCATED)
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and b"\x12\x07pytorch" in start[:16]):
        _refuse(path, "an ONNX model, which is exported already", "name it where a model or an engine is taken")
    _refuse(path, "a text file" if is_text(start) else "content of an unknown format", "name the checkpoint")


def _refuse(path: Path, got: str, fix: str, expected: str = "a checkpoint, .pth or .safetensors") -> NoReturn:
    raise InputError(f"{path} is no checkpoint", got=got, expected=expected, fix=fix)


def _is_safetensors(start: bytes, size: int) -> bool:
    return len(start) > 9 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= size - 8


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], ModelSpec | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file", got=_first_line(error), fix=TRUNCATED) from error
    spec = ModelSpec.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    return tensors, spec


def _check_archive(path: Path, size: int, scan: PickleScan) -> None:
    """Checks the zip that torch is about to unpack, and scans the pickles in it."""
    try:
        with path.open("rb") as file:
            _check_directory(path, file, size)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            names = {member.filename.rpartition("/")[2] for member in members}
            if any(member.filename.endswith(("/constants.pkl", "/code/__torch__.py")) for member in members):
                _refuse(path, "TorchScript, a net with its code", _SAVE, "a state_dict of tensors")
            if "archive_format" in names:
                _refuse(path, "a program of torch.export", _SAVE, "a state_dict of tensors")
            if any(member.filename.endswith(".npy") for member in members):
                _refuse(path, "arrays of numpy (.npz)", _SAVE)
            if "data.pkl" not in {name.lower() for name in names} and names & {
                ".format_version",
                "byteorder",
                "version",
            }:
                _refuse(path, "a checkpoint without its index: writing it was interrupted", "save or copy it again")
            if "data.pkl" not in {name.lower() for name in names}:
                _refuse(path, f"a zip archive of {len(members)} files", "unpack it, and name the checkpoint in it")
            unpacked = sum(member.file_size for member in members)
            if unpacked > 2 * size:
                _refuse(
                    path, f"{unpacked:,} bytes once unpacked, from {size:,}", _SAVE, "at most twice the file's size"
                )
            for member in members:
                if member.filename.lower().endswith(".pkl"):
                    scan.scan(io.BytesIO(_unpacked(path, file, member)))
    except (zipfile.BadZipFile, struct.error, zlib.error, OSError, NotImplementedError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        _refuse_unreadable(path, error)


def _check_directory(path: Path, file: io.BufferedReader, size: int) -> None:
    """Checks how large the directory of a zip is, before it is read."""
    file.seek(max(0, size - 65_557))  # the end record, and the longest comment
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        return
    length = struct.unpack_from("<L", tail, end + 12)[0]
    locator = tail[max(0, end - 20) : end]
    if locator.startswith(b"PK\x06\x07"):
        file.seek(struct.unpack_from("<Q", locator, 8)[0])
        record = file.read(56)
        length = struct.unpack_from("<Q", record, 40)[0] if record.startswith(b"PK\x06\x06") else 0
    if length > _MAX_DIRECTORY:
        _refuse(path, f"a zip archive with a directory of {length:,} bytes", _SAVE)


def _unpacked(path: Path, file: io.BufferedReader, member: zipfile.ZipInfo) -> bytes:
    # Not by zipfile: torch may write checksums of zero, which zipfile refuses and torch's own reader does not.
    if max(member.file_size, member.compress_size) > _MAX_PICKLE:
        _refuse(path, f"a pickle of {member.file_size:,} bytes", _SAVE)
    file.seek(member.header_offset)
    header = file.read(30)
    if not header.startswith(_ZIP):
        raise zipfile.BadZipFile("a record without its header")
    file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)
    data = file.read(member.compress_size)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-15).decompress(data, member.file_size + 1)
    return data


def _load(path: Path, modules: set[str]) -> Any:
    import torch  # here, because files are checked before torch is imported

    try:
        with warnings.catch_warnings(), _standing_in(modules):
            # Of protocols and of types that are deprecated; what cannot be used is an error, here or later.
            warnings.simplefilter("ignore", UserWarning)
            if path.suffix == ".safetensors":  # of a path torch.load believes this suffix, whatever the content is
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} cannot be read as weights alone, and code from a checkpoint is never run",
            got=_reason(error),
            expected="a state_dict of tensors",
            fix="if you trust the file, load it in your own code and save model.state_dict()",
        ) from error
    except Exception as error:
        # Damaged files raise nearly every type of exception; each means that the file cannot be read.
        _refuse_unreadable(path, error)


def _refuse_unreadable(path: Path, error: Exception) -> NoReturn:
    raise InputError(f"{path} is not a readable PyTorch checkpoint", got=_first_line(error), fix=TRUNCATED) from error


@contextmanager
def _standing_in(modules: set[str]) -> Iterator[None]:
    """Lets torch read objects of classes that it does not know as `Unread`, so that the weights beside them load."""
    if all(_KNOWN.fullmatch(name) for name in modules):
        yield
        return
    import torch

    # Names that torch blocks stay blocked, and those that it knows are its own: it looks at its lists first.
    unknown = sorted(name for name in modules if not _KNOWN.fullmatch(name))
    with torch.serialization.safe_globals([(type(name, (Unread,), {}), name) for name in unknown]):
        yield


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _reason(error: Exception) -> str:
    # torch's message is a page of advice; only the sentence about the global that it refuses helps.
    match = re.search(r"(Unsupported (?:global|class|operand)[^\n]*|GLOBAL [^\n]*)", str(error))
    return (match.group(1) if match else _first_line(error)).partition(" was not an allowed")[0].strip()
