"""What a net is: the facts every artifact carries, and the JSON they travel in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, Literal

from fcn_deploy.errors import InputError, UsageError

FORMAT = 1
METADATA_KEY = "fcn_deploy.spec"

# Keys of a spec that stand there only where there is something to say.
_OF_SOME = ("model", "padding", "receptive_field")

Color = Literal["RGB", "BGR"]
PadMode = Literal["edge", "zero", "reflect"]
Rgb = tuple[int, int, int]
Triple = tuple[float, float, float]


def check_format(data: object, what: str) -> Mapping[str, Any]:
    """Returns `data` as a mapping if it is JSON of the format this version reads.

    Raises:
        InputError: `data` is not a JSON object, or its `format` is not 1.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{what} is not a JSON object", got=type(data).__name__)
    if data.get("format") != FORMAT:
        raise InputError(
            f"{what} has an unknown format",
            got=f'"format": {json.dumps(data.get("format"))}',
            expected=f'"format": {FORMAT}',
            fix="make it again with this version of fcn-deploy, or install the version that wrote it",
        )
    return data


def _require(condition: bool, what: str, got: object, expected: str) -> None:
    if not condition:
        raise InputError(what, got=repr(got), expected=expected)


def _positive(number: float | None, optional: bool) -> bool:
    return optional if number is None else number > 0


def _triple(values: object, what: str) -> Triple:
    try:
        first, second, third = (float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InputError(what, got=repr(values), expected="three numbers") from None
    return first, second, third


def known_fields(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of `data` the dataclass `kind` has fields for; a later version may have added more."""
    names = {field.name for field in dataclass_fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def _integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(what, got=repr(value), expected="an integer")
    return value


def _strings(values: object, what: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise InputError(what, got=repr(values), expected="a list of strings")
    return tuple(values)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: The tensor's name.
        dtype: A numpy dtype name such as `float32`.
        shape: An int where the size is fixed, the dimension's name where it is dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Normalization:
    """`(x * scale - mean) / std` for x in 0..255, in the net's channel order.

    Attributes:
        color: The channel order the net was trained on.
        scale: Factor applied to the 0..255 values.
        mean: Per channel, in the net's order, after scaling.
        std: Per channel, in the net's order, positive.
        assumed: True where nobody stated these values and a default was taken.
    """

    color: Color = "RGB"
    scale: float = 1 / 255
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    assumed: bool = False

    def __post_init__(self) -> None:
        _require(self.color in ("RGB", "BGR"), "normalization color", self.color, "RGB or BGR")
        _require(math.isfinite(self.scale) and self.scale > 0, "normalization scale", self.scale, "a positive number")
        _require(all(map(math.isfinite, self.mean)), "normalization mean", self.mean, "three finite numbers")
        _require(
            all(math.isfinite(s) and s > 0 for s in self.std),
            "normalization std",
            self.std,
            "three positive numbers",
        )

    def affine(self) -> tuple[Triple, Triple]:
        """Returns `(a, b)`, per channel, such that `x * a + b` is `(x * scale - mean) / std`."""
        a = [self.scale / std for std in self.std]
        b = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        return _triple(a, "scale"), _triple(b, "shift")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Normalization:
        """Builds it from the `normalization` object of a spec.

        Raises:
            InputError: A key is missing or holds a bad value.
        """
        return cls(
            color=data["color"],
            scale=float(data["scale"]),
            mean=_triple(data["mean"], "normalization mean"),
            std=_triple(data["std"], "normalization std"),
            assumed=bool(data.get("assumed", False)),
        )


# torchvision's ImageNet statistics, for RGB images scaled to 0..1:
# https://docs.pytorch.org/vision/stable/models.html
TORCHVISION = Normalization()

# What the published Caffe nets were trained with: BGR, 0..255, the mean of ILSVRC taken off.
CAFFE = Normalization("BGR", 1.0, (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Geometry:
    """Where the published FCNs differ in shape.

    Attributes:
        fc6_kernel: Kernel size of fc6: 1, or 7 as in VGG16 and the paper.
        input_padding: Padding of conv1_1: 0 stands for its own 1, where every map keeps its size; the paper has 100,
            pads nothing else behind the trunk, and crops at fixed offsets.
        skip_scales: Factors of pool4 and pool3 before their score layers; 0.01 and 0.0001 in nets trained at once.
    """

    fc6_kernel: int = 1
    input_padding: int = 0
    skip_scales: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        shape = (self.fc6_kernel, self.input_padding)
        known = shape in ((1, 0), (7, 0), (7, 100))
        _require(known, "geometry", shape, "fc6_kernel 1 or 7, input_padding 0, or 100 with 7")
        positive = len(self.skip_scales) == 2 and all(0 < scale < math.inf for scale in self.skip_scales)
        _require(positive, "geometry skip_scales", self.skip_scales, "two positive numbers")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data; scales of 1 go without saying."""
        data = asdict(self)
        if self.skip_scales == (1.0, 1.0):
            del data["skip_scales"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Geometry:
        """Builds it from the `geometry` object of a spec.

        Raises:
            InputError: A value is bad.
        """
        known = known_fields(cls, data)
        if "skip_scales" in known:
            known["skip_scales"] = tuple(known["skip_scales"])
        return cls(**known)


# The published nets': https://github.com/shelhamer/fcn.berkeleyvision.org
PAPER = Geometry(fc6_kernel=7, input_padding=100)
AT_ONCE = (0.01, 0.0001)


@dataclass(frozen=True)
class Padding:
    """How images are made larger for a net that works at multiples of some size only; what it adds is cut off again.

    Attributes:
        divisor: Height and width are padded to the next multiple of it, at the bottom and the right; at least 2.
        mode: `edge` repeats the last row and column, `zero` adds zeros (behind the normalisation, so the mean colour),
            `reflect` mirrors the image at its last row and column, over and over where it is smaller than the padding:
            numpy.pad's modes `edge`, `constant` and `reflect`.
    """

    divisor: int
    mode: PadMode = "edge"

    def __post_init__(self) -> None:
        _require(_integer(self.divisor, "padding divisor") >= 2, "padding divisor", self.divisor, "2 or more")
        _require(self.mode in ("edge", "zero", "reflect"), "padding mode", self.mode, "edge, zero or reflect")

    def padded(self, size: int) -> int:
        """Returns the next multiple of the divisor."""
        # Not -(-size // divisor): this is traced, and ONNX rounds a negative quotient the other way.
        return (size + self.divisor - 1) // self.divisor * self.divisor


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels of an image the logits of one pixel depend on, as far as they lie inside the image.

    Attributes:
        top: Rows above the pixel, 0 or more.
        bottom: Rows below it.
        left: Columns to its left.
        right: Columns to its right.
        alignment: The net does the same to an image and to a part of it that begins at a multiple of this, at least 1.
        any_size: Whether it does so at every size of the image, or only where that is a multiple of the alignment.
    """

    top: int
    bottom: int
    left: int
    right: int
    alignment: int
    any_size: bool = True

    def __post_init__(self) -> None:
        reach = (self.top, self.bottom, self.left, self.right)
        whole = all(_integer(side, "receptive field") >= 0 for side in reach)
        _require(whole, "receptive field", reach, "four integers of 0 or more")
        aligned = _integer(self.alignment, "receptive field alignment") >= 1
        _require(aligned, "receptive field alignment", self.alignment, "1 or more")
        _require(isinstance(self.any_size, bool), "receptive field any_size", self.any_size, "true or false")


@dataclass(frozen=True)
class CheckpointInfo:
    """Which weights a net was made from.

    Attributes:
        sha256: Of the checkpoint file, in hex.
        layout: The key layout it was read as, such as `seed`; `own` where the user's code made the net.
    """

    sha256: str
    layout: str


def _color(values: Sequence[object]) -> Rgb:
    red, green, blue = (_integer(value, "spec palette") for value in values)
    return red, green, blue


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a net that its weights do not say.

    Attributes:
        variant: `fcn32s`, `fcn16s` or `fcn8s`; for a net of the user's own the name of what makes it.
        stride: Stride of the finest score map: 32, 16 or 8; None for a net of the user's own.
        width: Channel multiplier of the trunk; 1.0 is VGG16; None for a net of the user's own.
        num_classes: C, the channels of `logits`.
        classes: One name a class.
        palette: One RGB colour a class, 0..255.
        ignore_index: The label that stands for "not labelled", or None.
        normalization: From 0..255 pixels to what the net takes.
        geometry: Which published shape the net has; None for a net of the user's own.
        model: What makes a net of the user's own, `package.module:callable`; None for the published ones.
        padding: For a net that works at multiples of some size only, else None.
        receptive_field: What tiles of an image have to overlap by; None for a net that cannot be run in tiles, or of
            which it was not computed.
        checkpoint: The weights it was made from, or None.
        exporter: Versions of what exported it, or empty.
    """

    variant: str
    stride: int | None
    width: float | None
    num_classes: int
    classes: tuple[str, ...]
    palette: tuple[Rgb, ...]
    ignore_index: int | None = 255
    normalization: Normalization = TORCHVISION
    geometry: Geometry | None = Geometry()
    model: str | None = None
    padding: Padding | None = None
    receptive_field: ReceptiveField | None = None
    checkpoint: CheckpointInfo | None = None
    exporter: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.num_classes > 0, "spec num_classes", self.num_classes, "a positive integer")
        own = self.model is not None
        _require(_positive(self.stride, own), "spec stride", self.stride, "a positive integer")
        _require(_positive(self.width, own), "spec width", self.width, "a positive number")
        _require(own or self.geometry is not None, "spec geometry", self.geometry, "that of a published net")
        _require(own or self.padding is None, "spec padding", self.padding, "none: the published nets take any size")
        if len(self.classes) != self.num_classes:
            raise InputError(
                "the number of class names does not match the net",
                got=f"{len(self.classes)} names",
                expected=f"{self.num_classes}, one for each channel of the score layer",
                fix="list one name a line, in the order of the labels, without the ignored class",
            )
        _require(
            len(self.palette) == self.num_classes,
            "spec palette",
            f"{len(self.palette)} colours",
            f"{self.num_classes}",
        )
        _require(
            all(len(rgb) == 3 and all(0 <= channel <= 255 for channel in rgb) for rgb in self.palette),
            "spec palette",
            self.palette,
            "three integers in 0..255 for each class",
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as JSON data, with its format number; what only some nets have only there."""
        data = {"format": FORMAT, **asdict(self), "geometry": self.geometry.to_json() if self.geometry else None}
        return {key: value for key, value in data.items() if value is not None or key not in _OF_SOME}

    def dumps(self) -> str:
        """Returns the spec as one line of JSON, as it stands in `metadata_props`."""
        return json.dumps(self.to_json(), separators=(",", ":"))

    @classmethod
    def from_json(cls, data: object) -> ModelSpec:
        """Reads what `to_json` wrote.

        Raises:
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, "the model spec")
        try:
            checkpoint, padding, model = (fields.get(key) for key in ("checkpoint", "padding", "model"))
            receptive = fields.get("receptive_field")
            stride, width, geometry = (fields[key] for key in ("stride", "width", "geometry"))
            ignore_index = fields["ignore_index"]
            return cls(
                variant=str(fields["variant"]),
                stride=None if stride is None else _integer(stride, "spec stride"),
                width=None if width is None else float(width),
                num_classes=_integer(fields["num_classes"], "spec num_classes"),
                classes=_strings(fields["classes"], "spec classes"),
                palette=tuple(_color(rgb) for rgb in fields["palette"]),
                ignore_index=None if ignore_index is None else _integer(ignore_index, "spec ignore_index"),
                normalization=Normalization.from_json(fields["normalization"]),
                geometry=None if geometry is None else Geometry.from_json(geometry),
                model=None if model is None else str(model),
                padding=Padding(**known_fields(Padding, padding)) if padding else None,
                receptive_field=ReceptiveField(**known_fields(ReceptiveField, receptive)) if receptive else None,
                checkpoint=CheckpointInfo(**known_fields(CheckpointInfo, checkpoint)) if checkpoint else None,
                exporter=dict(fields.get("exporter") or {}),
            )
        except KeyError as error:
            raise InputError("the model spec is incomplete", got=f"no key {error}") from error
        except (TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the model spec is malformed", got=str(error)) from error

    @classmethod
    def loads(cls, text: str) -> ModelSpec:
        """Reads what `dumps` wrote.

        Raises:
            InputError: `text` is not JSON, or not a spec.
        """
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError("the model spec is not JSON", got=str(error)) from error
        return cls.from_json(data)


@dataclass(frozen=True)
class ImageShape:
    """The shape of a batch of images, never of channels.

    Attributes:
        batch: How many images, at least 1.
        height: In pixels, at least 1.
        width: In pixels, at least 1.
    """

    batch: int
    height: int
    width: int

    def __post_init__(self) -> None:
        sizes = (self.batch, self.height, self.width)
        _require(all(size >= 1 for size in sizes), "shape", str(self), "NxHxW or HxW, each at least 1")

    @classmethod
    def parse(cls, text: str) -> ImageShape:
        """Reads `NxHxW`, or `HxW` for a batch of one.

        Raises:
            UsageError: `text` is neither.
        """
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", text):
            raise UsageError("bad shape", got=repr(text), expected="NxHxW or HxW, such as 4x512x512 or 360x480")
        *batch, height, width = (int(size) for size in text.split("x"))
        return cls(batch[0] if batch else 1, height, width)

    def __str__(self) -> str:
        return f"{self.batch}x{self.height}x{self.width}"
