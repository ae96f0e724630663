"""Checks that a file may be an ONNX model, without the library that reads it, which takes a second to import."""

from __future__ import annotations

from pathlib import Path

from fcn_deploy.artifacts.foreign import START, foreign
from fcn_deploy.errors import InputError
from fcn_deploy.files import reading

# The first byte of a ModelProto in protobuf's encoding: the number of a field, times 8, plus how it is encoded. The
# fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; 0xa2, 0xca and 0xd2 begin two-byte tags.
_FIRST = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca\xd2")
_ARCHIVE = b"PK\x03\x04"


def check_onnx_file(path: Path) -> None:
    """Checks, by its first bytes, that a file may be an ONNX model. A pipe is not read: it could be read only once.

    Raises:
        InputError: The file cannot be read, or is something else; the message says what.
    """
    with reading(path):
        if not path.is_file():
            return
        with path.open("rb") as file:
            start = file.read(START)
    if start and start[0] in _FIRST:
        return
    found = foreign(start, "model")
    if found is not None:
        raise InputError(f"{path} is not an ONNX model", got=found.kind, fix=found.fix)
    got = "a zip archive, such as a PyTorch checkpoint" if start.startswith(_ARCHIVE) else "a file of another format"
    raise InputError(f"{path} is not an ONNX model", got=got, fix="make one with fcn-deploy export")
