"""Optimisation profiles: the sizes of images that a TensorRT engine takes, and the sizes it is tuned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import UsageError

FixedShape = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class ImageProfile:
    """A range of shapes of images, never of channels; the profiles of an engine may overlap.

    Attributes:
        min: Smallest batch, height and width.
        opt: Batch, height and width that the engine is tuned for.
        max: Largest batch, height and width.

    Raises:
        UsageError: min <= opt <= max does not hold on every axis.
    """

    min: ImageShape
    opt: ImageShape
    max: ImageShape

    def __post_init__(self) -> None:
        sizes = zip(*map(astuple, (self.min, self.opt, self.max)), strict=True)
        if not all(low <= best <= high for low, best, high in sizes):
            raise UsageError("bad profile", got=str(self), expected="min <= opt <= max on every axis")

    def takes(self, shape: ImageShape) -> bool:
        """Returns whether an engine with this profile takes images of a shape."""
        sizes = zip(*map(astuple, (self.min, shape, self.max)), strict=True)
        return all(low <= size <= high for low, size, high in sizes)

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[int]]) -> ImageProfile:
        """Reads what `to_json` wrote.

        Raises:
            UsageError: min <= opt <= max does not hold on every axis.
        """
        return cls(*(ImageShape(*data[key]) for key in ("min", "opt", "max")))

    def to_json(self) -> dict[str, list[int]]:
        """Returns it as JSON data for a sidecar: [batch, height, width] each."""
        return {"min": list(astuple(self.min)), "opt": list(astuple(self.opt)), "max": list(astuple(self.max))}

    def __str__(self) -> str:
        if self.min == self.max:
            return str(self.opt)
        return f"{self.min} to {self.max}, tuned for {self.opt}"


# Wide enough to try an engine. An engine for a narrow range runs faster.
DEFAULT = ImageProfile(ImageShape(1, 32, 32), ImageShape(1, 512, 512), ImageShape(4, 1024, 1024))


def pair_shapes(
    least: Sequence[ImageShape], tuned: Sequence[ImageShape], largest: Sequence[ImageShape]
) -> tuple[ImageProfile, ...]:
    """Makes a profile of the n-th shape of each list.

    Args:
        least: The parameter `min_shape`.
        tuned: The parameter `opt_shape`; without the other two, each is a profile of exactly that shape.
        largest: The parameter `max_shape`.

    Raises:
        UsageError: The lists differ in length, or min <= opt <= max does not hold in a profile.
    """
    if not least and not largest:
        least = largest = tuned
    if not len(least) == len(tuned) == len(largest):
        raise UsageError(
            "the shapes do not make profiles",
            got=f"{len(least)} `min_shape`, {len(tuned)} `opt_shape`, {len(largest)} `max_shape`",
            expected="as many of each, or `opt_shape` alone for exactly that shape",
        )
    return tuple(map(ImageProfile, least, tuned, largest))


def resolve_profiles(
    profiles: Sequence[ImageProfile], fixed: FixedShape, min_size: tuple[int, int] = (1, 1)
) -> tuple[ImageProfile, ...]:
    """Returns the profiles to build: those asked for, or the default one with the sizes that the model fixes.

    Args:
        profiles: What was asked for; may be empty.
        fixed: [batch, height, width] of the model; None for a size that may be any.
        min_size: The smallest height and width that the net takes.

    Raises:
        UsageError: A profile asks for another size than the model has, or for a smaller one than the net takes.
    """
    if not profiles:
        shapes = (shape.at_least(min_size) for shape in (DEFAULT.min, DEFAULT.opt, DEFAULT.max))
        return (ImageProfile(*(_with(shape, fixed) for shape in shapes)),)
    for profile in profiles:
        if profile.min.at_least(min_size) != profile.min:
            raise UsageError(
                "a profile asks for smaller images than the net takes",
                got=str(profile),
                expected=f"`min_shape` of at least {min_size[0]}x{min_size[1]}",
            )
        if any(_with(shape, fixed) != shape for shape in (profile.min, profile.opt, profile.max)):
            raise UsageError(
                "the model does not take every shape of a profile",
                got=str(profile),
                expected=f"{'x'.join('any' if size is None else str(size) for size in fixed)}, as it was exported",
                fix="export it without `shape`, or name the shape it has",
            )
    return tuple(profiles)


def _with(shape: ImageShape, fixed: FixedShape) -> ImageShape:
    return ImageShape(*(size if want is None else want for size, want in zip(astuple(shape), fixed, strict=True)))
