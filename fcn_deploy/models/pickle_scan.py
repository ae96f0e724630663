"""Looks through a pickle before torch reads it: what would exhaust the stack, the memory or the patience is refused.

`torch.load(weights_only=True)` runs no code from a file, but it trusts the file's sizes, and it hashes keys: a tuple
nested thousands of times crashes the interpreter, and one that holds itself twice at each of 40 levels never ends.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

from fcn_deploy.errors import InputError

# Far above what nets need: a tensor takes about 35 steps, so this is for 34,000 tensors. torch takes as long again.
MAX_STEPS = 1_200_000
# Steps that put one plain value on the stack: (), None, True, False, [], {}, set().
_CONSTANTS = frozenset((b")", b"N", b"\x88", b"\x89", b"]", b"}", b"\x8f"))
MAX_DEPTH = 100  # of tuples in tuples
MAX_HASHED = 20_000_000  # elements of all tuples together, counted as often as hashing them would visit them


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class _Tuple:
    """What is known of a tuple: how deep it is, how many elements hashing it visits, and its elements."""

    __slots__ = ("depth", "items", "weight")

    def __init__(self, items: list[Any]) -> None:
        tuples = [item for item in items if type(item) is _Tuple]
        self.depth: int = 1 + max((item.depth for item in tuples), default=0)
        self.weight: int = 1 + len(items) + sum(item.weight for item in tuples)
        self.items = items
        if self.depth > MAX_DEPTH:
            raise _RefusedError(f"tuples nested more than {MAX_DEPTH} deep")


class _RefusedError(Exception):
    pass


class PickleScan:
    """Follows the steps of pickles without making what they describe.

    Attributes:
        modules: The classes and functions that the pickles name, `module.name`.
    """

    def __init__(self, path: object, capacity: int) -> None:
        """Makes a scan of one file.

        Args:
            path: What errors call the file.
            capacity: Size of the file in bytes: its storages cannot hold more values.
        """
        self.modules: set[str] = set()
        self._path = path
        self._capacity = capacity
        self._steps = 0
        self._hashed = 0
        self._storages: dict[Any, int] = {}

    def scan(self, stream: _Stream) -> bool:
        """Follows one pickle to its end.

        Args:
            stream: Stands at the first byte of the pickle; afterwards behind its last.

        Returns:
            Whether the pickle has an end, and only steps that torch takes. If not, torch stops at the same step.

        Raises:
            InputError: It has more steps, deeper keys or larger storages than any checkpoint.
        """
        try:
            return self._follow(stream)
        except _RefusedError as error:
            raise InputError(
                f"{self._path} is not a checkpoint that can be read safely",
                got=str(error),
                expected="the state_dict of a net",
                fix="save model.state_dict()",
            ) from error
        except (IndexError, KeyError, struct.error, OverflowError, MemoryError, UnicodeDecodeError):
            return False  # damaged: torch fails at the same step

    def _follow(self, stream: _Stream) -> bool:
        read = stream.read
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        while True:
            code = read(1)
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise _RefusedError(f"more than {MAX_STEPS:,} objects")
            if code in _CONSTANTS:
                stack.append(None)
            elif code in b"qr" and code:  # BINPUT, LONG_BINPUT
                memo[read(1)[0] if code == b"q" else struct.unpack("<I", read(4))[0]] = stack[-1]
            elif code in b"hj" and code:  # BINGET, LONG_BINGET
                stack.append(self._counted(memo[read(1)[0] if code == b"h" else struct.unpack("<I", read(4))[0]]))
            elif code == b"K":
                stack.append(read(1)[0])
            elif code == b"X":
                stack.append(self._text(stream))
            elif code == b"(":
                marks.append(stack)
                stack = []
            elif code == b"t":
                items, stack = stack, marks.pop()
                stack.append(self._counted(_Tuple(items)))
            elif code in (b"\x85", b"\x86", b"\x87"):
                count = code[0] - 0x84
                items = stack[-count:]
                if len(items) < count:
                    return False
                stack[-count:] = [self._counted(_Tuple(items))]
            elif code == b"J":
                stack.append(struct.unpack("<i", read(4))[0])
            elif code == b"M":
                stack.append(struct.unpack("<H", read(2))[0])
            elif code == b"\x8a":
                stack.append(int.from_bytes(read(read(1)[0]), "little", signed=True))
            elif code == b"G":
                stack.append(struct.unpack(">d", read(8))[0])
            elif code == b"U":
                stack.append(read(read(1)[0]).decode("latin-1"))
            elif code == b"c":
                module, name = (stream.readline().strip().decode("utf-8") for _ in range(2))
                self.modules.add(f"{module}.{name}")
                stack.append(None)
            elif code == b"Q":
                self._count_storage(stack[-1])
                stack[-1] = None
            elif code in (b"R", b"\x81"):  # REDUCE, NEWOBJ
                stack.pop()
                stack[-1] = None
            elif code in (b"b", b"a"):  # BUILD, APPEND
                stack.pop()
            elif code == b"s":  # SETITEM
                del stack[-2:]
            elif code in (b"e", b"u"):  # APPENDS, SETITEMS
                stack = marks.pop()
            elif code == b"\x80":
                read(1)
            else:
                return code == b"."

    def _text(self, stream: _Stream) -> str:
        (length,) = struct.unpack("<I", stream.read(4))
        if length > self._capacity:
            raise _RefusedError(f"a text of {length:,} characters in a file of {self._capacity:,} bytes")
        return stream.read(length).decode("utf-8", "surrogatepass")

    def _counted(self, value: Any) -> Any:
        """Counts what hashing a value would cost: each use of a tuple may be a key."""
        if type(value) is _Tuple:
            self._hashed += value.weight
            if self._hashed > MAX_HASHED:
                raise _RefusedError("tuples of tuples with millions of elements")
        return value

    def _count_storage(self, entry: Any) -> None:
        # ("storage", type, key, location, number of elements), and in old files a view
        if type(entry) is not _Tuple or len(entry.items) < 5:
            return
        key, count = entry.items[2], entry.items[4]
        if isinstance(count, int) and isinstance(key, str | int):
            self._storages[key] = max(count, self._storages.get(key, 0))
            # An element has at least one bit; in the usual formats one byte.
            if not 0 <= sum(self._storages.values()) <= 8 * self._capacity:
                raise _RefusedError(f"tensors of {count:,} values in a file of {self._capacity:,} bytes")
