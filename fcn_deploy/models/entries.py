"""Which entry of a checkpoint holds the weights of the net: beside an optimizer, averaged weights, or other nets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fcn_deploy.errors import InputError
from fcn_deploy.models.keys import bare, key_text, listed
from fcn_deploy.models.weights_file import Unread

# The entries under which training scripts save a net, the most telling first.
_ENTRIES = (
    "state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "module", "checkpoint",
    "model_state", "net_state_dict",
)  # fmt: skip
_AVERAGED = re.compile(r"(?i:(^|[^a-z])ema|(?<!sch)ema([^a-z]|$)|averag|(^|_)(avg|swa|teacher|shadow)(_|$))|EMA")
# Entries of training that hold averages of something else.
_OF_TRAINING = re.compile(r"optim|sched|scaler|loops|hyper", re.IGNORECASE)
_DEEPEST = 5  # entries within entries


def entry(content: Any, path: Path, wanted: str | None) -> tuple[str, Mapping[Any, Any]]:
    """Returns the entry of a checkpoint that holds the weights of a net.

    Args:
        content: What the file holds.
        path: What errors call the file.
        wanted: The name of the entry, if the user says it; `outer.inner` for one within another.

    Returns:
        The name of the entry, empty if the weights are at the top; and the entry.

    Raises:
        InputError: There are no weights, or several entries could be meant.
    """
    if wanted is not None:
        name, content = wanted, _at(content, wanted, path)
    else:
        name = ""
    known: dict[int, bool] = {}
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        found = [key for key, value in content.items() if isinstance(key, str) and _leads_to_tensors(value, known)]
        tensors = {key: each for key, each in content.items() if isinstance(key, str) and isinstance(each, Tensor)}
        if not found or not _beside(tensors, [content[key] for key in found]):
            if tensors:
                return name, content
            break
        inner = _chosen(content, found, name, path, wanted is not None)
        name, content = f"{name}.{inner}" if name else inner, content[inner]
    raise no_state(content, path)


def _beside(tensors: Mapping[str, Tensor], entries: list[Any]) -> bool:
    """Returns whether tensors are no weights, but stand beside entries that hold a net.

    Counters of the training are single numbers, states of random numbers are bytes, and weights of a loss are few and
    have names without dots.
    """
    weights = [key for key, each in tensors.items() if each.numel() > 1 and each.is_floating_point()]
    most = max((len(each) for each in entries if isinstance(each, Mapping)), default=0)
    return not weights or (len(weights) < most and not any("." in key for key in weights))


def _chosen(content: Mapping[Any, Any], found: list[str], outer: str, path: Path, stated: bool) -> str:
    averaged = [key for key in found if _AVERAGED.search(key)]
    known = found if len(found) == 1 else [key for key in _ENTRIES if key in found]
    if len(known) == 1 and (len(found) == 1 or not averaged):
        if not stated:
            _check_no_averages(content, known[0], outer, path)
        keys = _names(content[known[0]])
        if not any(_names(content[key]) == keys for key in found if key != known[0]):
            return known[0]
    names = [_joined(outer, key) for key in found]
    both = bool(averaged) and len(averaged) < len(found)
    preferred = _joined(outer, averaged[0]) if averaged else names[0]
    raise InputError(
        f"{path} holds {'plain and averaged (EMA) weights' if both else 'several sets of weights'}",
        got=listed(map(key_text, names)),
        expected="one of them",
        fix=f'say which one the net is, such as `weights_key="{key_text(preferred)}"`',
    )


def _names(entry: Any) -> frozenset[str]:
    """Returns the names of the tensors in an entry, or in the one entry that it holds."""
    for _ in range(_DEEPEST):
        if not isinstance(entry, Mapping):
            break
        names = frozenset(bare(key) for key, each in entry.items() if isinstance(key, str) and isinstance(each, Tensor))
        if names or len(entry) != 1:
            return names
        entry = next(iter(entry.values()))
    return frozenset()


def _joined(outer: str, key: str) -> str:
    return f"{outer}.{key}" if outer else key


def _check_no_averages(content: Mapping[Any, Any], chosen: str, outer: str, path: Path) -> None:
    """Checks that averaged weights are not hidden in other entries, as a callback keeps them."""
    others = {key: each for key, each in content.items() if key != chosen}
    for name, each in _averages(others, outer, set()):
        plain = _joined(outer, chosen)
        if isinstance(each, Mapping):
            fix = f'say which one the net is, such as `weights_key="{key_text(name)}"`'
        else:
            fix = (
                f'for the plain ones add `weights_key="{key_text(plain)}"`; the averaged ones have no names: copy them '
                "into the net in your own code, and save model.state_dict()"
            )
        raise InputError(
            f"{path} holds plain and averaged (EMA) weights",
            got=f"{key_text(plain)}, and {key_text(name)}, {kind(each)}",
            expected="one of them",
            fix=fix,
        )


def _averages(content: Mapping[Any, Any], outer: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yields averaged weights by name: mappings or lists of tensors, in entries that are called so."""
    if id(content) in seen or outer.count(".") >= _DEEPEST:
        return
    seen.add(id(content))
    for key, each in content.items():
        if not isinstance(key, str) or _OF_TRAINING.search(key):
            continue
        name = _joined(outer, key)
        if _AVERAGED.search(key) and (_leads_to_tensors(each, {}) or _is_list_of_tensors(each)):
            yield name, each
        elif isinstance(each, Mapping):
            yield from _averages(each, name, seen)


def _is_list_of_tensors(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, Tensor) for each in value)


def _at(content: Any, name: str, path: Path) -> Any:
    """Returns the entry of that name; dots lead into entries, unless a key has them itself."""
    if isinstance(content, Mapping):
        if name in content:
            return content[name]
        for position in (index for index, letter in enumerate(name) if letter == "."):
            if name[:position] in content:
                return _at(content[name[:position]], name[position + 1 :], path)
    known: dict[int, bool] = {}
    entries = content.items() if isinstance(content, Mapping) else ()
    has = [key for key, value in entries if isinstance(key, str) and _leads_to_tensors(value, known)]
    raise InputError(
        f"{path} has no entry {name!r} with weights",
        got=listed(map(key_text, has)) if has else _description(content),
        fix="leave out `weights_key`" if not has else f'give one of them: `weights_key="{has[0]}"`',
    )


def _leads_to_tensors(value: Any, known: dict[int, bool], depth: int = _DEEPEST) -> bool:
    """Returns whether a value is a state_dict or holds one.

    Args:
        value: An entry of a checkpoint.
        known: What was found out about others, by their id: entries may hold each other, or themselves.
        depth: How many levels to look at.
    """
    if not isinstance(value, Mapping) or depth == 0:
        return False
    if id(value) not in known:
        known[id(value)] = False
        tensors = sum(isinstance(key, str) and isinstance(each, Tensor) for key, each in value.items())
        if tensors:
            # The state of a scaler or a schedule may hold a tensor among numbers; weights are mostly tensors.
            known[id(value)] = 2 * tensors > len(value)
        if not known[id(value)]:
            inner = (each for key, each in value.items() if isinstance(key, str))
            known[id(value)] = any(_leads_to_tensors(each, known, depth - 1) for each in inner)
    return known[id(value)]


def no_state(content: Any, path: Path) -> InputError:
    """Returns the error for a file that holds no weights; it says what the file holds instead.

    Args:
        content: What the file holds.
        path: What the error calls the file.
    """
    entries = content if isinstance(content, Mapping) else {}
    inner = [each for each in entries.values() if isinstance(each, Mapping)]
    arrays = [each for mapping in (entries, *inner) for each in mapping.values() if _is_array(each)]
    if arrays:
        return InputError(
            f"{path} holds arrays of numpy, not tensors",
            got=f"{len(arrays)} of them",
            expected="a state_dict of tensors",
            fix="load it in your own code, and save {key: torch.from_numpy(value) for each key}",
        )
    modules = {key: each for key, each in entries.items() if isinstance(each, Unread)}
    whole = next((key for key in (*_ENTRIES, "ema") if key in modules), None)
    if isinstance(content, Unread) or whole is not None:
        return InputError(
            f"{path} holds a whole module, and code from a checkpoint is never run",
            got=kind(content) if whole is None else f"{whole}, {kind(modules[whole])}",
            expected="a state_dict of tensors",
            fix="if you trust the file, load it in your own code and save model.state_dict()",
        )
    loop = any(value is content for value in entries.values())
    nameless = [key for key, each in entries.items() if _is_list_of_tensors(each)]
    got = f"{listed(map(key_text, nameless))}, tensors without names" if nameless else _description(content)
    return InputError(
        f"{path} holds no state_dict",
        got=f"{kind(content)} that holds itself" if loop else got,
        expected="tensors by name, plain or under one key",
        fix="save model.state_dict()",
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, Unread) and type(value).__name__.startswith(("numpy.", "_codecs."))


def _description(content: Any) -> str:
    if not isinstance(content, Mapping):
        return kind(content)
    return f"a dict with {listed(map(key_text, content))}" if content else "a dict with no keys"


def kind(value: object) -> str:
    """Returns what a value is, with its article, such as `a list`."""
    if isinstance(value, Unread):
        return f"an object of {type(value).__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
