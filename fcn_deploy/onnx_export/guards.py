"""What torch.export took for granted about the sizes of images, and images for which it does not hold.

Tracing follows one way through a net. Where Python code asked for a size, `if height % 2:`, or a kernel did, torch
keeps the condition as a guard: outside of it, it promises nothing. Most guards are of no consequence, such as those
that set maps of one pixel apart, which ONNX does not. So each is put to the test, at a size that violates it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import DependencyError

_log = logging.getLogger(__name__)
_SIDES = range(1, 257)
_BATCHES = range(1, 9)
_LARGEST = 8192
# All that a condition may name beside the sizes: arithmetic, under Python's names and under torch's.
_NAMES = {
    "__builtins__": {"max": max, "min": min, "abs": abs, "int": int, "float": float, "bool": bool},
    "math": math,
    "torch": SimpleNamespace(sym_float=float, sym_int=int, sym_max=max, sym_min=min, sym_not=lambda value: not value),
}
_DIMS = {"0": "batch", "1": "3", "2": "height", "3": "width"}


@dataclass(frozen=True)
class Assumption:
    """A guard that does not hold for every image.

    Attributes:
        guard: The condition on `batch`, `height` and `width`.
        violated_by: The smallest image found for which it does not hold; None where it cannot be evaluated.
    """

    guard: str
    violated_by: ImageShape | None


def find_assumptions(program: torch.export.ExportedProgram, traced: ImageShape) -> list[Assumption]:
    """Returns the guards of a program that some image violates, one for each such image.

    Args:
        program: With one input, [N, 3, H, W], of dynamic N, H and W.
        traced: The shape it was traced with, which meets all of them.

    Raises:
        DependencyError: This version of torch does not tell its guards.
    """
    guards = getattr(program, "_guards_code", None)
    if guards is None:
        raise DependencyError(
            "this version of torch does not say what it assumed about sizes",
            got=f"torch {torch.__version__}",
            expected="2.9 or newer",
            fix="pip install 'torch>=2.9'",
        )
    found: dict[ImageShape | None, Assumption] = {}
    for guard in guards:
        assumption = _violated(guard, traced)
        if assumption is not None:
            found.setdefault(assumption.violated_by, assumption)
    return list(found.values())


def _violated(guard: str, traced: ImageShape) -> Assumption | None:
    # torch calls the one input as the net's argument: `L['x'].size()[2]` is the height.
    guard = re.sub(r"L\['\w+'\]\.size\(\)\[(\d)\]", lambda match: _DIMS[match[1]], guard)
    code = compile(guard, "<guard>", "eval")
    for shape in _candidates(guard, traced):
        try:
            holds = eval(code, dict(_NAMES), vars(shape))
        except Exception as error:  # a condition in words of torch's own
            _log.debug("guard %s cannot be evaluated: %s", guard, error)
            return Assumption(guard, None)
        if not holds:
            return Assumption(guard, shape)
    _log.debug("guard %s holds for every image tried", guard)
    return None


def _candidates(guard: str, traced: ImageShape) -> Iterator[ImageShape]:
    """Images that differ from the traced one in one respect, small ones first, and around every number named."""
    named = {int(number) + step for number in re.findall(r"\d+", guard) for step in (-1, 0, 1)}
    sides = sorted({*_SIDES, *(side for side in named if 1 <= side <= _LARGEST)})
    batch, height, width = traced.batch, traced.height, traced.width
    for side in sides:
        yield ImageShape(batch, side, width)
        yield ImageShape(batch, height, side)
        yield ImageShape(batch, side, side)
    for count in _BATCHES:
        yield ImageShape(count, height, width)
