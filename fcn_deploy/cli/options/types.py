"""Types of option values: what a text on the command line means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.artifacts.normalization import Triple
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import FcnDeployError

if TYPE_CHECKING:
    from fcn_deploy.evaluation.gates import GateOption


# The library checks whether a path exists: its error names the file and the reason, and has the right exit code.
PATH = click.Path(path_type=Path)


class ShapeType(click.ParamType[ImageShape]):
    """`NxHxW` or `HxW`."""

    name = "NxHxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ImageShape:
        """Parses a shape."""
        if isinstance(value, ImageShape):
            return value
        try:
            return ImageShape.parse(value)
        except FcnDeployError as error:
            self.fail(str(error), param, ctx)


class SizeType(click.ParamType[tuple[int, int]]):
    """`HxW`."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parses a size."""
        if isinstance(value, tuple):
            return value
        if value.count("x") != 1:
            self.fail(f"bad size: got {value!r}; expected HxW, such as 360x480", param, ctx)
        shape: ImageShape = ShapeType().convert(value, param, ctx)
        return shape.height, shape.width


class TripleType(click.ParamType[Triple]):
    """`a,b,c`."""

    name = "a,b,c"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Triple:
        """Parses three numbers."""
        if isinstance(value, tuple):
            return value
        try:
            first, second, third = (float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"got {value!r}; expected three numbers, such as 0.485,0.456,0.406", param, ctx)
        return first, second, third


class NumbersType(click.ParamType[tuple[float, ...]]):
    """`a,b,...`."""

    name = "a,b,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parses numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"got {value!r}; expected numbers, such as 90,95,99", param, ctx)


class IndicesType(click.ParamType[tuple[int, ...]]):
    """`I,J,...`."""

    name = "I,J,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parses integers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(number) for number in value.split(","))
        except ValueError:
            self.fail(f"got {value!r}; expected integers, such as 255 or 0,255", param, ctx)


class GateType(click.ParamType["GateOption"]):
    """`agreement>=98%`, or `fp32:error<=1e-3` for one precision."""

    name = "gate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> GateOption:
        """Parses a gate."""
        from fcn_deploy.evaluation.gates import GateOption

        if isinstance(value, GateOption):
            return value
        try:
            return GateOption.parse(value)
        except FcnDeployError as error:
            self.fail(str(error), param, ctx)


_KIND = click.Choice(("labels", "color", "overlay", "panel"))


class KindsType(click.ParamType[tuple[str, ...]]):
    """`KIND,...`."""

    name = "KIND,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parses kinds of pictures."""
        if isinstance(value, tuple):
            return value
        return tuple(_KIND.convert(kind, param, ctx) for kind in value.split(","))
