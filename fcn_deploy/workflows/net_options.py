"""What the user says about a net and its checkpoint, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from fcn_deploy.artifacts.geometry import AutoPadding, Padding, PadMode, SizeDivisor
from fcn_deploy.artifacts.normalization import Preset, Triple
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.data.classes import read_class_names
from fcn_deploy.errors import UsageError
from fcn_deploy.files import StrPath
from fcn_deploy.models.spec_options import SpecOptions, check_variant
from fcn_deploy.models.weights_options import WeightsOptions
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.workflows.parameters import channel_order, input_file, outputs, padding, triple

Variant = Literal["fcn32s", "fcn16s", "fcn8s"]


@dataclass(frozen=True)
class NetOptions:
    """The parameters of `export` and `deploy` that say what the net is; both document them.

    Raises:
        InputError: The file of class names cannot be read, or a number is out of its range.
        UsageError: Options do not go together, or one has an unknown value.
    """

    variant: Variant | None = None
    model: str | None = None
    size_divisor: SizeDivisor | None = None
    pad_mode: PadMode | None = None
    logits: str | int | None = None
    resize_logits: ResizeMode | None = None
    weights_key: str | None = None
    weights_prefix: str | None = None
    weights_ignore: Sequence[str] | str = ()
    num_classes: int | None = None
    class_names: StrPath | None = None
    ignore_index: int | None = None
    normalization: Preset | None = None
    mean: Triple | None = None
    std: Triple | None = None
    scale: float | None = None
    at_once: bool = False
    input_padding: Literal[0, 100] | None = None
    color: Literal["rgb", "bgr"] | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_variant(self.variant, self.model)
        _ = self.part, self.spec, ExportConfig(threshold=self.threshold)
        check_classes(self.num_classes, self.class_names)

    @property
    def padding(self) -> Padding | AutoPadding | None:
        """How images are padded for a custom net; None if they are not."""
        return padding(self.model, self.size_divisor, self.pad_mode)

    @property
    def part(self) -> WeightsOptions:
        """Which part of the checkpoint holds the weights."""
        return WeightsOptions.of(self.weights_key, self.weights_prefix, self.weights_ignore)

    @property
    def spec(self) -> SpecOptions:
        """What goes into the spec."""
        return SpecOptions(
            num_classes=self.num_classes,
            class_names=None if self.class_names is None else input_file(self.class_names),
            ignore_index=self.ignore_index,
            color=channel_order(self.color),
            scale=self.scale,
            mean=triple(self.mean, "mean"),
            std=triple(self.std, "std"),
            preset=self.normalization,
            at_once=self.at_once,
            input_padding=self.input_padding,
            model=self.model,
            padding=self.padding,
            outputs=outputs(self.model, self.logits, self.resize_logits),
        )

    def asked(self) -> dict[str, Any]:
        """Returns the options by name, as they were given."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def check_classes(num_classes: int | None, class_names: StrPath | None) -> None:
    """Checks what the user says of the classes, before the net is read. A pipe is not read: it could be read only once.

    Raises:
        InputError: The file of their names cannot be read, or names another number of them.
        UsageError: `num_classes` is not an integer of at least 1.
    """
    if num_classes is not None and not (isinstance(num_classes, int) and num_classes >= 1):
        raise UsageError("bad `num_classes`", got=repr(num_classes), expected="1 or more")
    if class_names is not None and (names := input_file(class_names)).is_file():
        read_class_names(names, None if num_classes == 1 else num_classes)  # a binary net has two classes
