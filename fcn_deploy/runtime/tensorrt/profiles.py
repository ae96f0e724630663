"""The optimisation profiles of a plan: which sizes it runs, and which of them suits a shape best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

from fcn_deploy.errors import ArtifactError, InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ShapeRange:
    """The shapes of one input that a profile takes.

    Attributes:
        min: Smallest size of each axis.
        opt: What the plan was tuned for.
        max: Largest size of each axis.
    """

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        ordered = len(self.min) == len(self.opt) == len(self.max) and all(
            low <= best <= high for low, best, high in zip(self.min, self.opt, self.max, strict=True)
        )
        if not ordered:
            raise ArtifactError("the plan's profile is no range", got=str(self), expected="min <= opt <= max")

    def holds(self, shape: Shape) -> bool:
        """Whether a shape is within the range."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )

    def distance(self, shape: Shape) -> float:
        """How far a shape is from what the plan was tuned for: the axes' ratios, as logarithms, added up; 0 is opt."""
        return sum(abs(log(size / best)) for size, best in zip(shape, self.opt, strict=True) if size != best)

    def __str__(self) -> str:
        low, best, high = ("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))
        return low if low == high else f"{low} to {high}, tuned for {best}"


Profile = Mapping[str, ShapeRange]


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int:
    """Returns the index of the profile to run a shape with: of those that hold it, the one tuned for the nearest.

    Args:
        profiles: Ranges by input name, in the plan's order.
        shapes: By input name.

    Raises:
        InputError: No profile holds the shapes; the message lists them.
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
            fix="fcn-deploy build-engine with --min-shape, --opt-shape and --max-shape around it",
        )
    return min(fitting, key=lambda index: sum(each.distance(shapes[name]) for name, each in profiles[index].items()))
