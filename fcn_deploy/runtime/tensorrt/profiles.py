"""The optimisation profiles of a plan: which shapes it runs, and which profile suits a shape best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

from fcn_deploy.errors import ArtifactError, InputError

Dims = tuple[int, ...]  # the size of each axis of a tensor


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input that a profile takes.

    Attributes:
        min: The smallest size of each axis.
        opt: The sizes that the plan was tuned for.
        max: The largest size of each axis.

    Raises:
        ArtifactError: They are not ordered, or differ in their number of axes.
    """

    min: Dims
    opt: Dims
    max: Dims

    def __post_init__(self) -> None:
        ordered = len(self.min) == len(self.opt) == len(self.max) and all(
            low <= best <= high for low, best, high in zip(self.min, self.opt, self.max, strict=True)
        )
        if not ordered:
            raise ArtifactError(
                "bad range of shapes in the plan's profile", got=str(self), expected="min <= opt <= max"
            )

    def holds(self, shape: Dims) -> bool:
        """Returns whether a shape is within the range."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )

    def distance(self, shape: Dims) -> float:
        """Returns how far a shape is from `opt`: the sum over the axes of |ln(size / opt)|, 0 or more."""
        return sum(abs(log(size / best)) for size, best in zip(shape, self.opt, strict=True) if size != best)

    def __str__(self) -> str:
        low, best, high = ("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))
        return low if low == high else f"{low} to {high}, tuned for {best}"


Profile = Mapping[str, ShapeRange]


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Dims]) -> int:
    """Returns the index of the profile to run shapes with: of those that hold them, the one tuned for the nearest.

    Args:
        profiles: Ranges by input name, in the plan's order.
        shapes: Shapes by input name.

    Raises:
        InputError: No profile holds the shapes; the message lists the profiles.
    """
    fitting = [
        index
        for index, profile in enumerate(profiles)
        if all(ranges.holds(shapes[name]) for name, ranges in profile.items())
    ]
    if not fitting:
        raise InputError(
            "the engine was not built for this shape",
            got=", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()),
            expected=" or ".join(", ".join(f"{name} {ranges}" for name, ranges in each.items()) for each in profiles),
            fix="build it again with a `min_shape`, `opt_shape` and `max_shape` that hold this shape",
        )
    return min(fitting, key=lambda index: sum(each.distance(shapes[name]) for name, each in profiles[index].items()))
