"""The guards of torch.export: what it assumed about the sizes of images, and images for which that is false.

Tracing follows one path through a net. If Python code or a kernel asks for a size (`if height % 2:`), torch keeps the
condition of that path as a guard; for images that violate a guard it promises nothing. Most guards do no harm: many
only exclude maps of one pixel, which ONNX computes like all others. So each guard is tried, with an image that
violates it (see `comparison.require_harmless`).
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
# All that a condition can name besides the sizes: arithmetic, by Python's names and by torch's.
_NAMES = {
    "__builtins__": {"max": max, "min": min, "abs": abs, "int": int, "float": float, "bool": bool},
    "math": math,
    "torch": SimpleNamespace(sym_float=float, sym_int=int, sym_max=max, sym_min=min, sym_not=lambda value: not value),
}
_DIMS = {"0": "batch", "1": "3", "2": "height", "3": "width"}


@dataclass(frozen=True)
class Guard:
    """A condition that torch.export assumed and that is not true for every image.

    Attributes:
        condition: A Python expression of `batch`, `height` and `width`.
        violated_by: The smallest image found for which it is false; None if it cannot be evaluated.
    """

    condition: str
    violated_by: ImageShape | None


def find_violated_guards(
    program: torch.export.ExportedProgram, traced: ImageShape, min_size: tuple[int, int] = (1, 1)
) -> list[Guard]:
    """Returns the guards of a program that some image violates; of several that the same image violates, the first.

    Args:
        program: It has one input, [N, 3, H, W], of dynamic N, H and W.
        traced: The shape it was traced with, which meets every guard.
        min_size: The smallest height and width that the net takes: guards may exclude smaller images.

    Raises:
        DependencyError: This version of torch does not give access to its guards.
    """
    conditions = getattr(program, "_guards_code", None)
    if conditions is None:
        raise DependencyError(
            "this version of torch does not say what it assumed about sizes",
            got=f"torch {torch.__version__}",
            expected="2.9 or newer",
            fix="pip install 'torch>=2.9'",
        )
    found: dict[ImageShape | None, Guard] = {}
    for condition in conditions:
        guard = _violated(condition, traced, min_size)
        if guard is not None:
            found.setdefault(guard.violated_by, guard)
    return list(found.values())


def _violated(condition: str, traced: ImageShape, min_size: tuple[int, int]) -> Guard | None:
    """The guard with the smallest image that violates it; None if every image tried meets it."""
    # torch names the input as the argument of the net: `L['x'].size()[2]` is the height.
    condition = re.sub(r"L\['\w+'\]\.size\(\)\[(\d)\]", lambda match: _DIMS[match[1]], condition)
    code = compile(condition, "<guard>", "eval")
    for shape in _candidates(condition, traced):
        if shape.height < min_size[0] or shape.width < min_size[1]:
            continue
        try:
            holds = eval(code, dict(_NAMES), vars(shape))
        except Exception as error:  # the condition uses a name of torch's own
            _log.debug("guard %s cannot be evaluated: %s", condition, error)
            return Guard(condition, None)
        if not holds:
            return Guard(condition, shape)
    _log.debug("guard %s holds for every image tried", condition)
    return None


def _candidates(condition: str, traced: ImageShape) -> Iterator[ImageShape]:
    """Images that differ from the traced one in one respect: small ones first, and those near each number named."""
    named = {int(number) + step for number in re.findall(r"\d+", condition) for step in (-1, 0, 1)}
    sides = sorted({*_SIDES, *(side for side in named if 1 <= side <= _LARGEST)})
    batch, height, width = traced.batch, traced.height, traced.width
    for side in sides:
        yield ImageShape(batch, side, width)
        yield ImageShape(batch, height, side)
        yield ImageShape(batch, side, side)
    for count in _BATCHES:
        yield ImageShape(count, height, width)
