"""The names of tensors in a checkpoint: wrappers and prefixes that are not the net's own, and how errors show them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

_SHOWN = 8
# What DataParallel, torch.compile, FSDP and activation checkpointing put into keys, at any place.
_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


class State(OrderedDict[str, Tensor]):
    """Tensors by key, as torch saves them: `_metadata` has the versions of modules, which torch's migrations ask for.

    Attributes:
        entry: Where in the file the tensors are, such as `model_ema`; empty if at the top.
    """

    entry: str = ""
    _metadata: Mapping[str, Any]


def key_text(key: object) -> str:
    """A key for a message: one line, and not long."""
    text = key if isinstance(key, str) else f"a key of type {type(key).__name__}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:200])
    return text if len(text) <= 100 else f"{text[:97]}..."


def listed(names: Iterable[object]) -> str:
    """Returns at most eight names, and how many more there are."""
    everything = [str(name) for name in names]
    more = len(everything) - _SHOWN
    return ", ".join(everything[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def beginnings(keys: Iterable[Any]) -> list[str]:
    """The first parts of keys, each once."""
    return list(dict.fromkeys(bare(key).partition(".")[0] for key in keys if isinstance(key, str)))


def bare(key: str) -> str:
    """Returns a key without the names that wrappers of modules put into it, wherever they are."""
    parts = key.split(".")
    # The last part is the name of the tensor.
    return ".".join([*(part for part in parts[:-1] if part not in _WRAPPERS), parts[-1]])


def _bare_module(path: str) -> str:
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS)


def renamed(state: State, names: Mapping[str, str], module: Callable[[str], str]) -> State:
    """Renames tensors by a table, and the modules in the metadata by a function."""
    renamed = State((new, state[old]) for old, new in names.items())
    renamed.entry = state.entry
    renamed._metadata = {module(path): value for path, value in state._metadata.items() if isinstance(path, str)}
    return renamed


def stripped(state: State, prefix: str) -> State:
    """Leaves out a prefix, which all keys have."""
    names = {key: key.removeprefix(prefix) for key in state}
    return renamed(state, names, lambda path: f"{path}.".removeprefix(prefix).removesuffix("."))


def shared_prefix(keys: Collection[str]) -> str | None:
    """Returns the prefix that all keys share, up to their first dot; None if they differ or one has no dot."""
    parts = {key.partition(".")[0] for key in keys if "." in key}
    return f"{next(iter(parts))}." if len(parts) == 1 and all("." in key for key in keys) else None


def without_wrappers(state: State) -> State:
    """Returns a state_dict without wrappers' names in its keys; as it is if two keys would become one."""
    names = {key: bare(key) for key in state}
    return renamed(state, names, _bare_module) if len(set(names.values())) == len(names) else state
