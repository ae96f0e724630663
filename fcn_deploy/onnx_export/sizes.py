"""Sizes in the Python code of a net: where one becomes a number while the net is traced, and how to keep it a symbol.

While torch.export traces a net, a height is a symbol, and what is computed from it with `+`, `//` or `math.floor` is
one too. `int(height / 3)` is not: Python demands a number there, and gets that of the image that is traced. Older nets
compute the kernels of their pools like this.
"""

from __future__ import annotations

import builtins
import importlib.util
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

_PYTHON = f"{Path(os.__file__).parent}{os.sep}"
# Whose code is not the user's: Python, torch and what it computes sizes with, and this package.
_LIBRARIES = tuple(
    f"{Path(spec.origin or '').parent}{os.sep}"
    for spec in map(importlib.util.find_spec, ("torch", "sympy", "numpy", "fcn_deploy"))
    if spec is not None
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_SYMBOLS = (torch.SymInt, torch.SymFloat)
# What Python calls when it needs a number: int(), an index or range(), float().
_CONVERSIONS = ("__int__", "__index__", "__float__")


@contextmanager
def numbers_noted(net: nn.Module) -> Iterator[list[str]]:
    """While the context is open, notes where the code of a net makes a number of a size.

    Args:
        net: The net that is traced.

    Yields:
        The places, as `place_of` describes them, each once.
    """
    places: list[str] = []
    with ExitStack() as changes:
        for kind in _SYMBOLS:
            for method in _CONVERSIONS:
                if method in vars(kind):
                    changes.enter_context(_replaced(kind, method, _noting(getattr(kind, method), net, places)))
        yield places


def _noting(convert: Callable[[Any], Any], net: nn.Module, places: list[str]) -> Callable[[Any], Any]:
    def convert_and_note(symbol: Any) -> Any:
        caller = sys._getframe(1)
        # torch converts symbols too, of sizes that it knows already.
        if not _is_library(caller) and (place := place_of(caller, net)) is not None and place not in places:
            places.append(place)
        return convert(symbol)

    return convert_and_note


@contextmanager
def int_keeps_symbols(net: nn.Module) -> Iterator[None]:
    """While the context is open, `int` of a symbol is a symbol, rounded towards zero, in the code of a net.

    Args:
        net: The net that is traced; `int` is replaced in the Python modules that define it.
    """
    with ExitStack() as changes:
        for name in sorted(_defining_modules(net)):
            changes.enter_context(_replaced(sys.modules[name], "int", _SymbolicInt))
        yield


class _AsInt(type):
    """Makes `isinstance(value, int)` mean the same as before in a Python module whose `int` is replaced."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, builtins.int)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, builtins.int)


class _SymbolicInt(int, metaclass=_AsInt):
    """Stands for `int`."""

    def __new__(cls, value: Any = 0, *arguments: Any, **keywords: Any) -> Any:
        """Returns what `int` returns, but a symbol for a symbol."""
        if isinstance(value, _SYMBOLS):
            return torch.sym_int(value)  # type: ignore[no-untyped-call]
        return int(value, *arguments, **keywords)


def _defining_modules(net: nn.Module) -> set[str]:
    """Names of the Python modules that define the classes of a net, without those of libraries."""
    kinds = {kind for module in nn.Module.modules(net) for kind in type(module).__mro__}
    names = {kind.__module__ for kind in kinds if issubclass(kind, nn.Module)} & set(sys.modules)
    return {name for name in names if not _is_in_library(getattr(sys.modules[name], "__file__", None) or "")}


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def place_of(frame: FrameType | None, net: nn.Module) -> str | None:
    """Describes where in a net its code is running.

    Args:
        frame: The innermost frame.
        net: The net that runs.

    Returns:
        File, line and code of the innermost frame that is the user's, and the module of the net if it has a path there:
        `nets.py:70 in encoder.pool: k = int(h / 3)`. None if no frame is the user's.
    """
    while frame is not None and _is_library(frame):
        frame = frame.f_back
    if frame is None:
        return None
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    paths = {id(module): path for path, module in nn.Module.named_modules(net)}
    path = next(filter(None, (paths.get(id(outer.f_locals.get("self"))) for outer in _outwards(frame))), None)
    return place + (f" in {path}" if path else "") + (f": {code}" if code else "")


def place_of_error(error: BaseException, net: nn.Module) -> str | None:
    """Describes where in a net an error was raised; see `place_of`.

    Args:
        error: It has been raised.
        net: The net that ran.
    """
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return None if traceback is None else place_of(traceback.tb_frame, net)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_library(frame: FrameType) -> bool:
    return _is_in_library(frame.f_code.co_filename)


def _is_in_library(file: str) -> bool:
    of_python = file.startswith(_PYTHON) and not any(folder in file for folder in _INSTALLED)
    return of_python or file.startswith(("<", *_LIBRARIES))
