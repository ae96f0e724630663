"""The guards of torch.export: what it assumed about the sizes of images, and images for which that is false.

Tracing follows one path through a net. If Python code or a kernel asks for a size (`if height % 2:`), torch keeps the
condition of that path as a guard; for images that violate a guard it promises nothing. Most guards do no harm: many
only exclude maps of one pixel, which ONNX computes like all others. So each guard is tried, with an image that
violates it (see `comparison.require_harmless`).
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, SimpleNamespace

import torch

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import DependencyError

_log = logging.getLogger(__name__)
# Images to begin with, the smallest that meets every guard: small ones run fast.
_ORDINARY = sorted(
    (ImageShape(2, height, width) for height in (67, 131, 263, 519) for width in (93, 187, 389, 775)),
    key=lambda shape: shape.height * shape.width,
)
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
        met_by: An image that meets every guard of the program.
        numbers: Where the net's code makes a number of a size, which holds for the size that was traced.
    """

    condition: str
    violated_by: ImageShape | None
    met_by: ImageShape
    numbers: tuple[str, ...] = ()


def find_violated_guards(
    program: torch.export.ExportedProgram,
    traced: ImageShape,
    min_size: tuple[int, int] = (1, 1),
    numbers: Sequence[str] = (),
) -> list[Guard]:
    """Returns the guards of a program that some image violates; of several that the same image violates, the first.

    Args:
        program: It has one input, [N, 3, H, W], of dynamic N, H and W.
        traced: The shape it was traced with, which meets every guard.
        min_size: The smallest height and width that the net takes: guards may exclude smaller images.
        numbers: Where the net's code makes a number of a size.

    Raises:
        DependencyError: This version of torch does not give access to its guards.
    """
    code = getattr(program, "_guards_code", None)
    if code is None:
        raise DependencyError(
            "this version of torch does not say what it assumed about sizes",
            got=f"torch {torch.__version__}",
            expected="2.9 or newer",
            fix="pip install 'torch>=2.9'",
        )
    # torch names the input as the argument of the net: `L['x'].size()[2]` is the height.
    conditions = [
        re.sub(r"L\['\w+'\]\.size\(\)\[(\d)\]", lambda match: _DIMS[match[1]], condition) for condition in code
    ]
    known = [condition for condition in conditions if _holds(condition, traced) is not None]
    ordinary = [shape for shape in _ORDINARY if shape.at_least(min_size) == shape]
    met_by = next(shape for shape in (*ordinary, traced) if all(_holds(each, shape) for each in known))
    found: dict[ImageShape | None, Guard] = {}
    for condition in conditions:
        guard = _violated(condition, met_by, min_size, tuple(numbers))
        if guard is not None:
            found.setdefault(guard.violated_by, guard)
    return list(found.values())


def _violated(condition: str, met_by: ImageShape, min_size: tuple[int, int], numbers: tuple[str, ...]) -> Guard | None:
    """The guard with the smallest image that violates it; None if every image tried meets it."""
    for shape in _candidates(condition, met_by):
        if shape.height < min_size[0] or shape.width < min_size[1]:
            continue
        holds = _holds(condition, shape)
        if holds is None:
            return Guard(condition, None, met_by, numbers)
        if not holds:
            return Guard(condition, shape, met_by, numbers)
    _log.debug("guard %s holds for every image tried", condition)
    return None


def _holds(condition: str, shape: ImageShape) -> bool | None:
    """Whether an image meets a condition; None if the condition cannot be evaluated."""
    try:
        return bool(eval(_compiled(condition), dict(_NAMES), vars(shape)))
    except ZeroDivisionError:  # the condition speaks of what is not there in an image as small as this
        return False
    except Exception as error:  # the condition uses a name of torch's own
        _log.debug("guard %s cannot be evaluated: %s", condition, error)
        return None


@functools.lru_cache(maxsize=64)
def _compiled(condition: str) -> CodeType:
    return compile(condition, "<guard>", "eval")


def _candidates(condition: str, met_by: ImageShape) -> Iterator[ImageShape]:
    """Images that differ in one respect from one that meets all: small ones, and those near each number named."""
    named = {int(number) + step for number in re.findall(r"\d+", condition) for step in (-1, 0, 1)}
    sides = sorted({*_SIDES, *(side for side in named if 1 <= side <= _LARGEST)})
    batch, height, width = met_by.batch, met_by.height, met_by.width
    for side in sides:
        yield ImageShape(batch, side, width)
        yield ImageShape(batch, height, side)
        yield ImageShape(batch, side, side)
    for count in _BATCHES:
        yield ImageShape(count, height, width)
