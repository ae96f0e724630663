"""How a plan is run: how many calls at a time, with how many CUDA graphs, with kernels compiled when."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal, get_args

from fcn_deploy.errors import UsageError
from fcn_deploy.runtime.tensorrt.profiles import Profile

# `eager`: before the first run of a shape, which then takes seconds. `lazy`: in the background, while kernels for any
# shape run, which are slower. `none`: never.
Specialization = Literal["lazy", "eager", "none"]


CONTEXTS = 8
GRAPHS = 4


def check_counts(contexts: int | None, graphs: int | None) -> None:
    """Checks a number of execution contexts and one of CUDA graphs; None is the default.

    Raises:
        UsageError: There are no contexts, or fewer than no graphs.
    """
    if contexts is not None and not _is_count(contexts, 1):
        raise UsageError("bad number of execution `contexts`", got=repr(contexts), expected="an integer, 1 or more")
    if graphs is not None and not _is_count(graphs, 0):
        raise UsageError("bad number of CUDA `graphs`", got=repr(graphs), expected="an integer, 0 or more")


def _is_count(value: object, least: int) -> bool:
    """Returns whether a value is an integer, Python's or numpy's, of at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_specialization(value: object) -> None:
    """Checks a name of a specialization; None is one that is still to be chosen.

    Raises:
        UsageError: There is no such specialization.
    """
    if value is not None and not (isinstance(value, str) and value in get_args(Specialization)):
        raise UsageError("unknown `specialization`", got=repr(value), expected=" or ".join(get_args(Specialization)))


def choose_specialization(asked: Specialization | None, profiles: Sequence[Profile]) -> Specialization:
    """Returns what was asked for; if nothing was, `eager` where every profile is one shape and otherwise `lazy`.

    With ranges, `eager` would block the call at every new shape.
    """
    if asked is not None:
        return asked
    fixed = all(shapes.min == shapes.max for profile in profiles for shapes in profile.values())
    return "eager" if fixed else "lazy"
