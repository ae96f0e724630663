"""Looks through a pickle before torch reads it: what would exhaust the stack, the memory or the patience is refused.

`torch.load(weights_only=True)` runs no code from a file, but it trusts the file's sizes, and it hashes keys: a tuple
nested thousands of times crashes the interpreter, one that holds itself twice at each of 40 levels never ends, and
numbers that differ by 2**61 - 1 have one hash, so that a dict of many takes hours.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any, Protocol

from fcn_deploy.errors import InputError

# Far above what nets need: a tensor takes about 70 steps, so this is for 11,000 tensors. torch takes as long again.
MAX_STEPS = 800_000
# Steps for which torch searches lists of what it allows take longer than the others; so do new sets.
_SLOW = {b"]": 2, b"}": 2, b"c": 4, b"R": 8, b"\x81": 8, b"b": 8, b"Q": 8, b"\x8f": 4}
# Steps that put one plain value on the stack: (), None, True, False, [], {}, set().
_CONSTANTS = frozenset((b")", b"N", b"\x88", b"\x89", b"]", b"}", b"\x8f"))
MAX_DEPTH = 100  # of tuples in tuples
MAX_HASHED = 20_000_000  # elements of all tuples together, counted as often as hashing them would visit them
MAX_COPIED = 20_000_000  # elements of all containers together that calls may copy
MAX_COLLIDING = 10_000  # values that are hashed and may be made to have the same hash
MAX_SEARCHED = 5_000_000  # classes that torch does not know, times the steps that search them
_FEW = 64
_MODULUS = (1 << 61) - 1  # of Python's hash of integers
# What makes as many bytes as a number says, or a tensor of any size.
_MAKES_MEMORY = re.compile(
    r"(builtins|__builtin__)\.bytearray|torch\.storage\.(Unt|T)ypedStorage|torch\.((cuda|sparse|xpu)\.)*[A-Z]?\w*Tensor"
)
_HASHES = re.compile(r"(builtins|__builtin__)\.set|collections\.\w+")
_COPIES_TENSOR = "torch._utils._rebuild_device_tensor_from_cpu_tensor"
_CODECS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")


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


class _Name(str):
    """A class or function that the pickle names."""

    __slots__ = ()


class _Container:
    """A list or dict, of which the size is known, and of a list how many elements may be made to have one hash."""

    __slots__ = ("colliding", "size")

    def __init__(self) -> None:
        self.size = 0
        self.colliding = 0


class _Array:
    """A tensor, of which the number of values is known."""

    __slots__ = ("values",)

    def __init__(self, values: int) -> None:
        self.values = values


class _RefusedError(Exception):
    pass


def _colliding(items: list[Any]) -> int:
    """Returns how many values can be made to have the same hash: large integers, tuples, and pairs with such keys."""
    kinds = (_Tuple, _Container)
    return sum(type(each) in kinds or (type(each) is int and not -_MODULUS < each < _MODULUS) for each in items)


def _colliding_in(value: Any) -> int:
    if type(value) is _Tuple:
        return _colliding(value.items)
    return value.colliding if type(value) is _Container else 0


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
        self._copied = 0
        self._encoded = 0
        self._values = 0
        self._colliding = 0
        self._foreign: set[str] = set()
        self._searches = 0
        self._storages: dict[Any, int] = {}
        self._stored = 0

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
            self._steps += _SLOW.get(code, 1)
            if self._steps > MAX_STEPS:
                raise _RefusedError(f"more than {MAX_STEPS:,} objects")
            if code in _CONSTANTS:
                stack.append(_Container() if code in b"]}" else None)
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
                stack.append(self._named(f"{module}.{name}"))
            elif code == b"Q":
                self._count_storage(stack[-1])
                stack[-1] = None
            elif code in (b"R", b"\x81"):  # REDUCE, NEWOBJ
                args = stack.pop()
                stack[-1] = self._called(stack[-1], args)
            elif code == b"b":  # BUILD
                self._copy(stack.pop())
                self._search(1)
            elif code == b"a":  # APPEND
                self._fill(stack[-2], [stack[-1]])
                stack.pop()
            elif code == b"s":  # SETITEM
                self._fill(stack[-3], [stack[-2]])
                self._collide(_colliding([stack[-2]]))
                del stack[-2:]
            elif code in (b"e", b"u"):  # APPENDS, SETITEMS
                items, stack = stack, marks.pop()
                keys = items if code == b"e" else items[::2]
                self._fill(stack[-1], keys)
                if code == b"u":
                    self._collide(_colliding(keys))
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

    def _named(self, name: str) -> _Name:
        self.modules.add(name)
        if not name.startswith(("torch.", "collections.")):
            self._foreign.add(name)
            self._search(1)
        return _Name(name)

    def _search(self, steps: int) -> None:
        self._searches += steps
        if len(self._foreign) > _FEW and len(self._foreign) * self._searches > MAX_SEARCHED:
            raise _RefusedError(f"objects of {len(self._foreign):,} classes")

    def _fill(self, container: Any, items: list[Any]) -> None:
        if type(container) is _Container:
            container.size += len(items)
            container.colliding += _colliding(items)

    def _collide(self, count: int) -> None:
        """Counts keys of dicts and elements of sets whose hash a file can choose."""
        self._colliding += count
        if self._colliding > MAX_COLLIDING:
            raise _RefusedError(f"more than {MAX_COLLIDING:,} numbers or tuples as keys")

    def _called(self, function: Any, args: Any) -> Any:
        """Counts what a call makes, and returns what is to be known of it."""
        items = args.items if type(args) is _Tuple else []
        self._search(1)
        self._copy(args)
        if type(function) is not _Name:
            return None
        first = items[0] if items and type(items[0]) is _Name else ""
        if _MAKES_MEMORY.fullmatch(first) or _HASHES.fullmatch(first):
            raise _RefusedError(f"a call of {items[0]} by another function")
        if _MAKES_MEMORY.fullmatch(function) and not all(type(item) in (str, type(None)) for item in items):
            raise _RefusedError(f"a call of {function} with a size")
        if _HASHES.fullmatch(function):
            self._collide(sum(_colliding_in(item) for item in items))
        if function == "_codecs.encode" and any(item not in _CODECS for item in items[1:]):
            raise _RefusedError("bytes in a codec that torch does not write")
        if function.startswith("torch._utils._rebuild_tensor") and len(items) > 2 and type(items[2]) is _Tuple:
            return _Array(math.prod(size for size in items[2].items if type(size) is int))
        if function == _COPIES_TENSOR and items and type(items[0]) is _Array:
            self._values += items[0].values
            if self._values > 8 * self._capacity:
                raise _RefusedError(f"tensors of {self._values:,} values in a file of {self._capacity:,} bytes")
        if function == "torch.Size" and items and type(items[0]) is _Tuple:
            return items[0]
        return _Tuple([]) if function in ("torch.Size", "builtins.complex", "__builtin__.complex") else None

    def _copy(self, args: Any) -> None:
        """Counts the elements of what is passed to a call: it may copy them."""
        for item in args.items if type(args) is _Tuple else [args]:
            if type(item) is str:
                self._encoded += len(item)
                if self._encoded > 2 * self._capacity + 1_000_000:
                    raise _RefusedError(f"texts of {self._encoded:,} characters in a file of {self._capacity:,} bytes")
            elif type(item) is _Container:
                self._copied += item.size
            elif type(item) is _Tuple:
                self._copied += len(item.items)
        if self._copied > MAX_COPIED:
            raise _RefusedError("calls with millions of elements")

    def _count_storage(self, entry: Any) -> None:
        # ("storage", type, key, location, number of elements), and in old files a view
        if type(entry) is not _Tuple or len(entry.items) < 5:
            return
        key, count = entry.items[2], entry.items[4]
        if isinstance(count, int) and isinstance(key, str | int):
            before = self._storages.get(key, 0)
            self._storages[key] = max(count, before)
            self._stored += self._storages[key] - before
            # An element has at least one bit; in the usual formats one byte.
            if count < 0 or self._stored > 8 * self._capacity:
                raise _RefusedError(f"tensors of {count:,} values in a file of {self._capacity:,} bytes")
