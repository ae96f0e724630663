"""Finds the logits in what a net returns: a tensor, or several in a mapping, a sequence or an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from fcn_deploy.errors import InputError

# Keys and attributes under which torchvision's and transformers' nets return logits.
_KEYS = ("out", "logits")
_SHOWN = 8


def logits_of(output: Any, wanted: str | None = None) -> Tensor:
    """Returns the logits from what a net returns.

    Args:
        output: A tensor, or a mapping, a sequence or an object that holds tensors.
        wanted: The key, attribute or index of the logits, with dots for nested outputs. If None: the tensor itself; the
            one under `out` or `logits`, if there is only one of the two; or the only tensor there is.

    Raises:
        InputError: It holds no tensor or several, or none under that name.
    """
    found = output if wanted is None else _under(output, wanted)
    chosen = None if isinstance(found, _Nothing) else _only(found)
    if chosen is not None:
        return chosen
    tensors = [] if isinstance(output, Tensor) else list(_tensors(output))
    if wanted is not None:
        raise InputError(
            f"the net returns no logits under {wanted!r}",
            got=_shapes(tensors) or f"a {type(output).__name__}",
            expected="the key, attribute or index of one tensor in `logits`",
        )
    if not tensors:
        raise InputError(
            "the net returns no logits",
            got=f"a {type(output).__name__} without tensors",
            expected="a tensor [N, C, H, W], or something that holds one",
            fix="wrap the net in a module that returns its logits",
        )
    raise InputError(
        "the net returns several tensors, and nothing says which are the logits",
        got=_shapes(tensors),
        expected="one tensor, or one under 'out' or 'logits'",
        fix=f"name the logits, such as `logits={tensors[0][0]}`",
    )


class _Nothing:
    """What stands under a name that is not there."""


def _only(output: Any) -> Tensor | None:
    """The logits, if what was found leaves no choice."""
    if isinstance(output, Tensor):
        return output
    items = dict(_items(output))
    named = [items[key] for key in _KEYS if key in items and _only(items[key]) is not None]
    if len(named) == 1:
        return _only(named[0])
    tensors = [value for value in items.values() if list(_tensors(value))]
    return _only(tensors[0]) if len(tensors) == 1 else None


def _items(output: Any) -> Iterator[tuple[str, Any]]:
    """The parts of an output, by key, field or index."""
    if isinstance(output, Mapping):
        yield from ((str(key), value) for key, value in output.items())
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from zip(output._fields, output, strict=True)
    elif isinstance(output, list | tuple):
        yield from ((str(index), value) for index, value in enumerate(output))
    elif is_dataclass(output) and not isinstance(output, type):
        yield from ((field.name, getattr(output, field.name)) for field in fields(output))
    elif not isinstance(output, Tensor):
        yield from ((key, getattr(output, key)) for key in _KEYS if isinstance(getattr(output, key, None), Tensor))


def _tensors(output: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in an output, each with its name."""
    if isinstance(output, Tensor):
        yield path, output
    for key, value in _items(output):
        yield from _tensors(value, f"{path}.{key}" if path else key)


def _under(output: Any, name: str) -> Any:
    """What stands under a name or an index, or under several with dots between them."""
    items = dict(_items(output))
    if name in items:
        return items[name]
    values = list(items.values())
    try:
        return values[int(name)]
    except (ValueError, IndexError):
        pass
    first, dot, rest = name.partition(".")
    inner = _under(output, first) if dot else _Nothing()
    return inner if isinstance(inner, _Nothing) else _under(inner, rest)


def _shapes(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Tensors and their shapes, as an error shows them."""
    found = [f"{name}: {list(map(int, tensor.shape))}" for name, tensor in tensors]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
