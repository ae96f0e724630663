"""From what a checkpoint holds to the tensors of a net: which entry, which keys, and what torch makes of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcn_deploy.errors import InputError
from fcn_deploy.models.entries import entry, kind, no_state
from fcn_deploy.models.keys import (
    State,
    bare,
    beginnings,
    key_text,
    listed,
    renamed,
    shared_prefix,
    stripped,
    without_wrappers,
)
from fcn_deploy.models.weights_options import WeightsOptions

_log = logging.getLogger(__name__)
_SHOWN = 8
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_LONGEST = 2000  # characters of a key
_MOST_PREFIXES = 8


def tensors_of(content: Any, path: Path, options: WeightsOptions | None = None) -> State:
    """Returns the tensors in what a checkpoint holds.

    Args:
        content: What was read.
        path: What errors call the file.
        options: Which entry, which prefix, and what is left out.

    Raises:
        InputError: There are none, or several entries could be meant, or entries that are no tensors are among them, or
            an option names what the file does not have.
    """
    options = options or WeightsOptions()
    name, found = entry(content, path, options.key)
    state = State((key, value) for key, value in found.items())
    state.entry = name
    metadata = getattr(found, "_metadata", None)
    state._metadata = metadata if isinstance(metadata, Mapping) else {}
    ignored = _ignored(state, path, options.ignore)
    for key in ignored:
        del state[key]
    if options.prefix is not None:
        state = _under(state, options.prefix, path)
    odd = [key for key, value in state.items() if not _is_tensor(key, value)]
    if odd and len(odd) < len(state):
        raise InputError(
            f"{path} has entries among its tensors that are no tensors",
            got=listed(f"{key_text(key)} ({kind(state[key])})" for key in odd),
            expected="tensors only",
            fix=_ignoring(odd),
        )
    if odd:
        raise no_state(content, path)
    if any(len(key) > _LONGEST for key in state):
        raise InputError(f"{path} has keys of more than {_LONGEST} characters", expected="names of tensors")
    if _COUNTER in state and all(key.startswith("module.") for key in state if key != _COUNTER):
        del state[_COUNTER]
    return state


def _is_tensor(key: Any, value: Any) -> bool:
    # Under `_extra_state` torch saves what a module's own get_extra_state returns.
    return isinstance(key, str) and (isinstance(value, Tensor) or key.rpartition(".")[2] == "_extra_state")


def _ignored(state: Mapping[Any, Any], path: Path, globs: Sequence[str]) -> list[Any]:
    ignored = []
    for glob in globs:
        matching = [key for key in state if isinstance(key, str) and _matches(key, glob)]
        if not matching:
            raise InputError(
                f"{path} has nothing that `weights_ignore` names",
                got=glob,
                expected=f"a pattern for some of {listed(map(key_text, beginnings(state)))}",
                fix="mend it or leave it out",
            )
        ignored += matching
    if ignored:
        _log.info("%s: left out %s, as `weights_ignore` says", path.name, listed(map(key_text, ignored)))
    return list(dict.fromkeys(ignored))


def _matches(key: str, glob: str) -> bool:
    return fnmatchcase(key, glob) or fnmatchcase(bare(key), glob)


def _under(state: State, prefix: str, path: Path) -> State:
    prefix = prefix if prefix.endswith(".") else f"{prefix}."
    texts = [key for key in state if isinstance(key, str)]
    for keys in ({key: key for key in texts}, {bare(key): key for key in texts}):
        under = [key for key in keys if key.startswith(prefix)]
        if under:
            left = len(state) - len(under)
            if left:
                _log.info("%s: %d entries are not under %s and are left out", path.name, left, prefix)
            taken = {keys[key]: key for key in under}
            return stripped(renamed(state, taken, lambda module: module), prefix)
    raise InputError(
        f"{path} has no tensor under `weights_prefix`",
        got=prefix,
        expected=listed(f"{part}." for part in beginnings(state)),
        fix="mend it or leave it out",
    )


def _ignoring(keys: Iterable[Any]) -> str:
    """The advice to leave out keys, as few globs as tell them apart from nothing."""
    globs = dict.fromkeys(f"{key.partition('.')[0]}.*" if "." in key else key for key in keys if isinstance(key, str))
    if not globs:
        return "save model.state_dict()"
    shown = " and ".join(f'`weights_ignore="{key_text(glob)}"`' for glob in list(globs)[:3])
    return f"if the net does not need them, leave them out: {shown}"


def stripped_while(state: State, better: Callable[[State], int], path: Path) -> State:
    """Leaves out prefixes that all keys share, as long as that makes a state_dict better, and says so.

    Args:
        state: Without wrappers' names.
        better: How well a state_dict fits; the first of those that fit best is returned.
        path: What the log calls the file.
    """
    best, most, left_out, said = state, better(state), "", ""
    for _ in range(_MOST_PREFIXES):
        prefix = shared_prefix(state)
        if prefix is None:
            break
        state, left_out = stripped(state, prefix), left_out + prefix
        if better(state) > most:
            best, most, said = state, better(state), left_out
    if said:
        _log.info("%s: every key begins with %s, which is left out", path.name, said)
    return best


def fitted(state: State, wanted: Collection[str], path: Path) -> State:
    """Returns a state_dict under the names of a net: wrappers' names and a prefix that all keys share are left out.

    Args:
        state: As it was read.
        wanted: The keys of the net.
        path: What the log calls the file.
    """
    if all(key in wanted for key in state):
        return state  # a net may have a module called `module`
    names = {bare(key): key for key in wanted}
    if len(names) < len(wanted):
        names = {key: key for key in wanted}
    modules = {old.rpartition(".")[0]: new.rpartition(".")[0] for old, new in names.items()}
    state = without_wrappers(state)
    state = stripped_while(state, lambda one: sum(key in names for key in one), path)
    return renamed(state, {key: names.get(key, key) for key in state}, lambda module: modules.get(module, module))


def load_into(net: nn.Module, state: State, path: Path, name: str) -> None:
    """Loads a state_dict as torch does, with its migrations of old ones, and checks that everything fits.

    Args:
        net: Changed in place.
        state: Under the net's names, see `fitted`.
        path: What errors call the file.
        name: What errors call the net.

    Raises:
        InputError: Tensors are missing, unexpected or of another shape; all are listed.
    """
    wanted = net.state_dict()
    what = f"{path} does not fit {name}"
    try:
        result = net.load_state_dict(state, strict=False)
    except Exception as error:  # torch raises RuntimeError for shapes; a net's own hooks may raise anything
        check_fit(state, wanted, what)
        first = str(error).strip().split("\n")[0]
        raise InputError(what, got=f"{type(error).__name__}: {first}") from error
    missing, unexpected = list(result.missing_keys), list(result.unexpected_keys)
    if missing or unexpected:
        raise _misfit(what, missing, unexpected, [], wanted)


def check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Checks that a state_dict has every tensor of a net, and no other.

    Args:
        state: The state_dict that was read.
        wanted: The state_dict of the net.
        what: The first words of the error.

    Raises:
        InputError: Tensors are missing, unexpected or of another shape; all are listed.
    """
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    misshapen = [
        f"{key} {list(state[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or unexpected or misshapen:
        raise _misfit(what, missing, unexpected, misshapen, wanted)


def _misfit(
    what: str, missing: list[str], unexpected: list[str], misshapen: list[str], wanted: Collection[str]
) -> InputError:
    prefixes = _prefixes_of_net(missing, unexpected)
    if prefixes:  # then the lists are those of the whole net, and say nothing
        others = [key for key in unexpected if not key.startswith(tuple(prefixes))]
        beside = f", beside {listed(map(key_text, others))}" if others else ""
        got = f"the net's tensors under {listed(map(key_text, prefixes))}{beside}"
        return InputError(what, got=got, fix=part_advice(prefixes, others))
    part = re.search(r"-(\d{5})-of-(\d{5})\b", what)
    if missing and part is not None and int(part[2]) > 1:
        return InputError(
            what,
            got=f"part {int(part[1])} of {int(part[2])}, without {listed(map(key_text, missing))}",
            fix="join the parts in your own code, and save them in one file by torch.save or save_file",
        )
    problems = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    got = " | ".join(f"{name}: {listed(map(key_text, keys))}" for name, keys in problems if keys)
    return InputError(what, got=got, fix=_advice(missing, unexpected, misshapen, wanted))


def _prefixes_of_net(missing: list[str], unexpected: list[str]) -> list[str]:
    """Returns the prefixes under which all missing tensors are."""
    if not missing:
        return []
    first = f".{missing[0]}"
    has = set(unexpected)
    candidates = [key.removesuffix(missing[0]) for key in unexpected if key.endswith(first)][:_SHOWN]
    return [prefix for prefix in candidates if all(f"{prefix}{key}" in has for key in missing)]


def _advice(missing: list[str], unexpected: list[str], misshapen: list[str], wanted: Collection[str]) -> str:
    if misshapen and not missing and not unexpected:
        return "name the checkpoint that was trained with this net, or make the net with the sizes of the checkpoint"
    if len(missing) == len(wanted) or (missing and unexpected and len(missing) > len(wanted) // 2):
        return "the checkpoint is of another net: name the one that was trained with this net"
    if not missing and not misshapen:
        own = {key.partition(".")[0] for key in wanted}
        if all(key.partition(".")[0] not in own for key in unexpected):
            return _ignoring(unexpected)
    return "save model.state_dict() of the whole net"


def nets_in(state: State, knows: Callable[[Mapping[str, Tensor]], bool]) -> tuple[list[str], list[str]]:
    """Returns the prefixes under which a net is known, and the keys that are under none of them."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        first, dot, rest = key.partition(".")
        if dot:
            parts.setdefault(f"{first}.", {})[rest] = value
    prefixes = [prefix for prefix, part in parts.items() if knows(part)]
    return prefixes, [key for key in state if not key.startswith(tuple(prefixes))]


def part_advice(prefixes: Sequence[str], others: Sequence[str]) -> str:
    """Says how to take one of the nets in a file, or what to leave out."""
    if len(prefixes) > 1:
        several = " or ".join(f'`weights_prefix="{prefix}"`' for prefix in prefixes[:_SHOWN])
        return f"the file holds the net {len(prefixes)} times: say which one with {several}"
    return f'{_ignoring(others)}, or take `weights_prefix="{prefixes[0]}"` only'


def finite_float32(key: str, tensor: Tensor, path: Path) -> Tensor:
    """Returns a weight as float32, after checking that it is real, dense, finite, and holds what its shape claims.

    Raises:
        InputError: It fails one of these checks.
    """
    dense = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
    if not dense or not tensor.is_floating_point():
        kind = "quantized" if tensor.is_quantized else "empty" if tensor.is_meta else f"{tensor.layout}"
        raise InputError(
            f"{path}: {key} is not a plain weight", got=f"{tensor.dtype}, {kind}", expected="a dense tensor of floats"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path}: {key} claims more values than it holds", got=f"{list(tensor.shape)}")
    weights = tensor.float()
    # Of the smallest and the largest, which are NaN if a value is, because isfinite makes a copy of all.
    if weights.numel() and not torch.isfinite(torch.stack(torch.aminmax(weights))).all():
        raise InputError(f"{path}: {key} has values that are not finite", expected="finite weights")
    return weights
