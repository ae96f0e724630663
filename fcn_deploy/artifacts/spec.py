"""The model spec: the facts about a net that every artifact carries, and their JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fcn_deploy.artifacts.geometry import SEED, Geometry, Padding
from fcn_deploy.artifacts.json import (
    FORMAT,
    check_format,
    integer,
    known_fields,
    optional_number,
    positive,
    require,
    strings,
)
from fcn_deploy.artifacts.normalization import TORCHVISION, Normalization
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.artifacts.receptive_field import ReceptiveField
from fcn_deploy.errors import InputError
from fcn_deploy.text import printable

METADATA_KEY = "fcn_deploy.spec"
# The `layout` of the weights of a net that was adopted: it was an ONNX model already.
ONNX_LAYOUT = "onnx"
# The classes of a binary net that does not name them.
BINARY_CLASSES = ("background", "foreground")

# Keys that stand in a spec only if there is something to say.
_OPTIONAL = ("model", "padding", "receptive_field", "min_size", "outputs", "threshold")
# Those without which a spec would be misunderstood: it lists the ones it has under `requires`.
_REQUIRED = ("threshold", "min_size")


@dataclass(frozen=True)
class CheckpointInfo:
    """Which weights a net was made from.

    Attributes:
        sha256: Of the checkpoint file, in hex.
        layout: The key layout it was read as, such as `seed`; `own` if the user's code made the net, `onnx` if the file
            was an ONNX model that `adopt` took.
    """

    sha256: str
    layout: str


def _color(values: Sequence[object]) -> Rgb:
    red, green, blue = (integer(value, "spec palette") for value in values)
    return red, green, blue


def _size(values: Sequence[object]) -> tuple[int, int]:
    height, width = (integer(value, "spec min_size") for value in values)
    return height, width


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a net that its weights do not say.

    Attributes:
        variant: `fcn32s`, `fcn16s` or `fcn8s`; for a custom net the name of the callable that makes it, for an adopted
            one that of its file.
        stride: Stride of the finest score map: 32, 16 or 8; None for a custom or adopted net, as the next.
        width: Channel multiplier of the trunk, 1.0 for VGG16.
        num_classes: The number of labels: C, the channels of `logits`; 2 for a binary net, which has one channel.
        classes: One name for each class.
        palette: One RGB colour for each class, 0..255.
        ignore_index: The label that means "not labelled", or None.
        normalization: From pixels in 0..255 to the net's input.
        geometry: Which published shape the net has; None for a custom or adopted net.
        model: What makes a custom net, `package.module:callable`; None for the published nets and for adopted ones.
        padding: For a net that works only at multiples of some size, else None.
        receptive_field: How far tiles of an image have to overlap; None for a net that cannot be run in tiles, or if it
            was not computed.
        checkpoint: The weights it was made from, or None.
        exporter: Versions of the libraries that exported it, or empty.
        min_size: The smallest height and width of images that the net takes, in pixels.
        outputs: What is taken from what a custom net returns; None for the logits as they are.
        threshold: For a binary net, which has one channel: a pixel's label is 1 if its value is greater, else 0. None
            for a net with a channel for each class.

    Raises:
        InputError: A value is bad, or two values do not fit each other.
    """

    variant: str
    stride: int | None
    width: float | None
    num_classes: int
    classes: tuple[str, ...]
    palette: tuple[Rgb, ...]
    ignore_index: int | None = 255
    normalization: Normalization = TORCHVISION
    geometry: Geometry | None = SEED
    model: str | None = None
    padding: Padding | None = None
    receptive_field: ReceptiveField | None = None
    checkpoint: CheckpointInfo | None = None
    exporter: Mapping[str, str | int] = field(default_factory=dict)
    min_size: tuple[int, int] = (1, 1)
    outputs: Outputs | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        require(self.num_classes > 0, "spec num_classes", self.num_classes, "a positive integer")
        own = self.model is not None or self.adopted
        require(min(self.min_size) >= 1, "spec min_size", self.min_size, "height and width, each at least 1")
        require(own or self.outputs is None, "spec outputs", self.outputs, "none: the published nets return logits")
        if self.threshold is not None:
            require(math.isfinite(self.threshold), "spec threshold", self.threshold, "a finite number")
            require(self.num_classes == 2, "spec num_classes", self.num_classes, "2 for a net with a threshold")
        require(positive(self.stride, own), "spec stride", self.stride, "a positive integer")
        require(positive(self.width, own), "spec width", self.width, "a positive number")
        require(own or self.geometry is not None, "spec geometry", self.geometry, "the geometry of a published net")
        require(own or self.padding is None, "spec padding", self.padding, "none: the published nets take any size")
        if len(self.classes) != self.num_classes:
            raise InputError(
                "the number of class names does not match the net",
                got=f"{len(self.classes)} names",
                expected="2, background and foreground"
                if self.threshold is not None
                else f"{self.num_classes}, one for each channel of the score layer",
                fix="list one name a line, in the order of the labels, without the ignored class",
            )
        require(
            len(self.palette) == self.num_classes,
            "spec palette",
            f"{len(self.palette)} colours",
            f"{self.num_classes}",
        )
        require(
            all(len(rgb) == 3 and all(0 <= channel <= 255 for channel in rgb) for rgb in self.palette),
            "spec palette",
            self.palette,
            "three integers in 0..255 for each class",
        )

    def __repr__(self) -> str:
        colors = self.normalization.color
        stride = "" if self.stride is None else f", stride {self.stride}"
        return printable(f"ModelSpec({self.variant}, {self.num_classes} classes, {colors}{stride})")

    @property
    def adopted(self) -> bool:
        """Whether the net was an ONNX model already, so that PyTorch does not have it."""
        return self.checkpoint is not None and self.checkpoint.layout == ONNX_LAYOUT

    @property
    def channels(self) -> int:
        """C, the channels of `logits`: 1 for a binary net, else one for each class."""
        return self.num_classes if self.threshold is None else 1

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as JSON data, with its format number and without optional keys that are None."""
        data = {"format": FORMAT, **asdict(self), "geometry": self.geometry.to_json() if self.geometry else None}
        data["min_size"] = list(self.min_size) if self.min_size != (1, 1) else None
        requires = [key for key in _REQUIRED if data[key] is not None]
        found = {key: value for key, value in data.items() if value is not None or key not in _OPTIONAL}
        return {**found, "requires": requires} if requires else found

    def dumps(self) -> str:
        """Returns the spec as one line of JSON, for the `metadata_props` of an ONNX model."""
        return json.dumps(self.to_json(), separators=(",", ":"))

    @classmethod
    def from_json(cls, data: object) -> ModelSpec:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: It cannot be understood without a key that this version does not know.
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, "the model spec", _REQUIRED)
        try:
            checkpoint, padding, model = (fields.get(key) for key in ("checkpoint", "padding", "model"))
            receptive = fields.get("receptive_field")
            stride, width, geometry = (fields[key] for key in ("stride", "width", "geometry"))
            ignore_index = fields["ignore_index"]
            return cls(
                variant=str(fields["variant"]),
                stride=None if stride is None else integer(stride, "spec stride"),
                width=None if width is None else float(width),
                num_classes=integer(fields["num_classes"], "spec num_classes"),
                classes=strings(fields["classes"], "spec classes"),
                palette=tuple(_color(rgb) for rgb in fields["palette"]),
                ignore_index=None if ignore_index is None else integer(ignore_index, "spec ignore_index"),
                normalization=Normalization.from_json(fields["normalization"]),
                geometry=None if geometry is None else Geometry.from_json(geometry),
                model=None if model is None else str(model),
                padding=Padding(**known_fields(Padding, padding)) if padding else None,
                receptive_field=ReceptiveField(**known_fields(ReceptiveField, receptive)) if receptive else None,
                checkpoint=CheckpointInfo(**known_fields(CheckpointInfo, checkpoint)) if checkpoint else None,
                exporter=dict(fields.get("exporter") or {}),
                min_size=_size(fields.get("min_size") or (1, 1)),
                outputs=Outputs(**known_fields(Outputs, fields["outputs"])) if fields.get("outputs") else None,
                threshold=optional_number(fields.get("threshold"), "spec threshold"),
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
            InputError: `text` is not JSON, or is not a spec.
        """
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError("the model spec is not JSON", got=str(error)) from error
        return cls.from_json(data)
