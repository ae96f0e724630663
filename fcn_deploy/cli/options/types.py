"""Types of option values: what a text on the command line means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from fcn_deploy.artifacts.normalization import Triple
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import FcnDeployError

if TYPE_CHECKING:
    from fcn_deploy.evaluation.gates import GateOption


class PathType(click.ParamType[Path]):
    """A path. The library checks whether it exists: its error names the reason, and has the right exit code.

    Args:
        folder: Whether shells offer folders only.
    """

    name = "path"

    def __init__(self, *, folder: bool = False) -> None:
        self._offered = "dir" if folder else "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Makes a path, which is not empty."""
        _require_text(self, value, param, ctx)
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Lets the shell offer files, or folders."""
        return [CompletionItem(incomplete, type=self._offered)]


class NameType(click.ParamType[str]):
    """A path, or something else that has a name: `pytorch:CHECKPOINT`, a pattern, a preset.

    Args:
        offered: What shells offer beside files.
    """

    name = "text"

    def __init__(self, *offered: str) -> None:
        self._offered = offered

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text, which is not empty."""
        _require_text(self, value, param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offers the names that begin so, or else lets the shell offer files."""
        names = [CompletionItem(name) for name in self._offered if incomplete and name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]


def _require_text(
    kind: click.ParamType[Any], value: object, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    if value == "":  # for Python that is the current folder
        kind.fail("got an empty text; expected a path", param, ctx)


PATH, FOLDER, NAME = PathType(), PathType(folder=True), NameType()


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


class DivisorType(click.ParamType[int | str]):
    """An integer, or `auto`."""

    name = "D|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Parses a divisor."""
        if value == "auto":
            return "auto"
        return click.IntRange(2, 4096).convert(value, param, ctx)


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


_KIND = click.Choice(("labels", "color", "overlay", "panel", "legend"))


class KindsType(click.ParamType[tuple[str, ...]]):
    """`KIND,...`."""

    name = "KIND,..."

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offers the kinds for the last of the list."""
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + kind) for kind in _KIND.choices if kind.startswith(last)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parses kinds of pictures."""
        if isinstance(value, tuple):
            return value
        return tuple(_KIND.convert(kind, param, ctx) for kind in value.split(","))
