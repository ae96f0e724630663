"""Makes the spec of a net: from what the user says, what the checkpoint says, and defaults that are marked as such."""

from __future__ import annotations

import logging
import math
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fcn_deploy.artifacts.geometry import AT_ONCE, AutoPadding, Geometry, Padding
from fcn_deploy.artifacts.normalization import PRESETS, TORCHVISION, Color, Normalization, Preset, Triple
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.spec import BINARY_CLASSES, CheckpointInfo, ModelSpec
from fcn_deploy.data.classes import read_class_names
from fcn_deploy.errors import InputError, UsageError

if TYPE_CHECKING:  # they need torch, and options are checked without it
    from fcn_deploy.models.checkpoint import Checkpoint
    from fcn_deploy.models.custom import CustomNet

_log = logging.getLogger(__name__)
_IGNORE_INDEX = 255  # PASCAL VOC's and Cityscapes' label for "not labelled"
# Of the values that nets see: the usual normalisations span 1 (0..1) to 255, and stay within 0..255 or around 0.
_NARROW = 0.5
_FAR = 300.0


@dataclass(frozen=True)
class SpecOptions:
    """What the user says about a net; for None the checkpoint's value counts, or else the default.

    Attributes:
        num_classes: Number of classes; it is checked against the tensors.
        class_names: A CSV file, one class per line: `name` or `name,red,green,blue`.
        ignore_index: The label that means "not labelled".
        color: Channel order of the net's input.
        scale: Factor for pixels 0..255.
        mean: Per channel, after scaling.
        std: Per channel, after scaling.
        preset: A name for scale, mean, std and color; values beside it must be its own.
        at_once: Whether the skips were scaled, as in nets trained at once; tensors do not tell.
        input_padding: 0 or 100, if it is not that of the checkpoint's layout.
        model: What makes a custom net, `package.module:callable`; None for a published net.
        padding: How images are padded for a custom net; None for no padding.
        outputs: What is taken from what a custom net returns; None for the logits as they are.

    Raises:
        InputError: A number of the normalisation is out of its range.
        UsageError: `padding` without `model`, `at_once` or `input_padding` with it, or values that contradict `preset`.
    """

    num_classes: int | None = None
    class_names: str | os.PathLike[str] | None = None
    ignore_index: int | None = None
    color: Color | None = None
    scale: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    preset: Preset | None = None
    at_once: bool = False
    input_padding: int | None = None
    model: str | None = None
    padding: Padding | AutoPadding | None = None
    outputs: Outputs | None = None

    def __post_init__(self) -> None:
        if self.preset is not None:
            self._check_preset(self.preset)
        stated = {name: getattr(self, name) for name in ("color", "scale", "mean", "std")}
        replace(TORCHVISION, **{name: value for name, value in stated.items() if value is not None})  # checks them
        if self.model is not None:
            net_name(self.model)
        if self.model is None and self.padding is not None:
            raise UsageError("the published nets work at every size", got="`size_divisor`", fix="leave it out")
        if self.model is None and self.outputs is not None:
            raise UsageError(
                "the published nets return their logits, of the size of the image",
                got="`logits` or `resize_logits`",
                fix="leave them out",
            )
        if self.model is not None and (self.at_once or self.input_padding is not None):
            raise UsageError(
                "`at_once` and `input_padding` are for published nets", got="`model` with them", fix="leave them out"
            )

    def _check_preset(self, name: Preset) -> None:
        preset = PRESETS.get(name)
        if preset is None:
            raise UsageError("unknown `normalization`", got=repr(name), expected=" or ".join(PRESETS))
        for key in ("scale", "mean", "std", "color"):
            given, stated = getattr(self, key), getattr(preset, key)
            if given is not None and not _same(given, stated):
                raise UsageError(
                    f"`{key}` contradicts `normalization`",
                    got=f"{_shown(given)} with {name}, which has {_shown(stated)}",
                    fix="leave out one of them",
                )


def net_name(name: str) -> tuple[str, str]:
    """Returns the module and the callable that make a custom net.

    Args:
        name: `package.module:callable`, for instance `torchvision.models.segmentation:fcn_resnet50`.

    Raises:
        UsageError: `name` does not have that form.
    """
    match = re.fullmatch(r"([\w.]+):([A-Za-z_][\w.]*)", name)
    if match is None:
        raise UsageError(
            "`model` does not name a net", got=repr(name), expected="package.module:callable, such as nets:make_unet"
        )
    return match[1], match[2]


def check_variant(variant: str | None, model: str | None) -> None:
    """Checks that no variant of the published nets is asked of a custom net.

    Raises:
        UsageError: It is.
    """
    if model is not None and variant is not None:
        raise UsageError(
            "`variant` is for published nets, `model` is for custom nets",
            got="`variant` and `model`",
            fix="leave out one of them",
        )


def _same(given: float | Triple | str, stated: float | Triple | str) -> bool:
    if isinstance(given, str) or isinstance(stated, str):
        return given == stated
    pairs = zip(_tuple(given), _tuple(stated), strict=False)
    return all(math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-9) for one, other in pairs)


def _tuple(values: float | Triple) -> tuple[float, ...]:
    return values if isinstance(values, tuple) else (values,)


def _shown(values: float | Triple | str) -> str:
    return values.lower() if isinstance(values, str) else ",".join(f"{value:g}" for value in _tuple(values))


@dataclass(frozen=True)
class AdoptedNet:
    """What a spec needs to know of a net that is an ONNX model already.

    Attributes:
        variant: The name of its file, without the suffix.
        info: Hash of the file, with the layout `ONNX_LAYOUT`.
        num_classes: C, the channels of its logits.
        min_size: The smallest height and width it takes.
        padding: How images are padded; None for no padding.
        spec: None: such a file says nothing about classes or normalisation.
    """

    variant: str
    info: CheckpointInfo
    num_classes: int
    min_size: tuple[int, int] = (1, 1)
    padding: Padding | None = None
    spec: None = None


def make_spec(checkpoint: Checkpoint | CustomNet | AdoptedNet, options: SpecOptions | None = None) -> ModelSpec:
    """Returns the spec of a net.

    Each value is taken from the first source that has it: the options, the spec in the checkpoint, the checkpoint's
    layout, the defaults. A normalisation with a default in it is marked `assumed`, with a warning.

    Args:
        checkpoint: The net.
        options: What the user says about it; None for nothing.

    Raises:
        InputError: The number of classes or of their names is not that of the net, or the names cannot be read.
    """
    options = options or SpecOptions()
    known = checkpoint.spec
    binary = checkpoint.num_classes == 1
    count = 2 if binary else checkpoint.num_classes
    # A binary net has two classes; people who count its channels say one.
    if options.num_classes not in (None, count, checkpoint.num_classes):
        what = f"the {_named(checkpoint)} has another number of classes"
        raise InputError(what, got=count, expected=f"{options.num_classes}")
    if options.class_names is not None:
        classes, palette = read_class_names(options.class_names, count)
    elif known:
        classes, palette = known.classes, known.palette
    else:
        names = BINARY_CLASSES if binary else (f"class_{index}" for index in range(count))
        classes, palette = tuple(names), default_palette(count)
    ignore_index = options.ignore_index
    if ignore_index is None:
        ignore_index = known.ignore_index if known else _IGNORE_INDEX
    return ModelSpec(
        variant=checkpoint.variant,
        num_classes=count,
        classes=classes,
        palette=palette,
        ignore_index=ignore_index,
        normalization=_normalization(checkpoint, options),
        checkpoint=checkpoint.info,
        # The threshold of a logit. Only the exported graph says whether the net ends in a sigmoid.
        threshold=(known.threshold if known and known.threshold is not None else 0.0) if binary else None,
        **_architecture(checkpoint, options),
    )


def _named(checkpoint: Checkpoint | CustomNet | AdoptedNet) -> str:
    return "model" if isinstance(checkpoint, AdoptedNet) else "checkpoint"


def _architecture(checkpoint: Checkpoint | CustomNet | AdoptedNet, options: SpecOptions) -> dict[str, Any]:
    published = dict.fromkeys(("stride", "width", "geometry"))
    if isinstance(checkpoint, AdoptedNet):
        return {**published, "min_size": checkpoint.min_size, "padding": checkpoint.padding}
    from fcn_deploy.models.custom import CustomNet  # it imports torch, which an adopted net does not need

    if isinstance(checkpoint, CustomNet):
        found = {"padding": checkpoint.padding, "outputs": checkpoint.outputs, "min_size": checkpoint.min_size}
        return {**published, "model": checkpoint.name, **found}
    geometry = _geometry(checkpoint, options)
    return {"stride": checkpoint.stride, "width": checkpoint.width, "geometry": geometry}


def _geometry(checkpoint: Checkpoint, options: SpecOptions) -> Geometry:
    if options.at_once:
        return replace(checkpoint.geometry, skip_scales=AT_ONCE)
    if checkpoint.spec is not None and checkpoint.spec.geometry is not None:
        return replace(checkpoint.geometry, skip_scales=checkpoint.spec.geometry.skip_scales)
    return checkpoint.geometry


def _known_normalization(checkpoint: Checkpoint | CustomNet | AdoptedNet) -> Normalization | None:
    if isinstance(checkpoint, AdoptedNet):
        return None
    from fcn_deploy.models.layouts import layout_normalization

    return checkpoint.spec.normalization if checkpoint.spec else layout_normalization(checkpoint.info.layout)


def _normalization(checkpoint: Checkpoint | CustomNet | AdoptedNet, options: SpecOptions) -> Normalization:
    known = _known_normalization(checkpoint)
    if options.preset is not None:
        # Values given beside a preset are the same to four digits: the ones that were given count.
        known = PRESETS[options.preset]
    base = known or TORCHVISION
    # An assumed channel order alone is no reason to warn: every image reader gives RGB, and users of BGR nets say so.
    assumed = known is None and None in (options.scale, options.mean, options.std)
    normalization = Normalization(
        color=options.color or base.color,
        scale=base.scale if options.scale is None else options.scale,
        mean=options.mean or base.mean,
        std=options.std or base.std,
        assumed=assumed,
    )
    _warn_if_unusual(normalization)
    if assumed:
        _log.warning(
            "the %s does not say how its images were normalised; assuming scale %.6g, mean %s, std %s, %s. "
            "If the net was trained with other values, give `scale`, `mean`, `std` and `color`",
            _named(checkpoint),
            normalization.scale,
            _numbers(normalization.mean),
            _numbers(normalization.std),
            normalization.color,
        )
    return normalization


def _warn_if_unusual(normalization: Normalization) -> None:
    """Warns of a mean or std that no pixel can have after scaling, or of values that nets rarely see."""
    brightest = 255 * normalization.scale
    beyond = [
        f"{name} {_numbers(values)}"
        for name, values in (("mean", normalization.mean), ("std", normalization.std))
        # A std of 1 means "no division", at every scale.
        if any(not -brightest * 0.001 <= value <= brightest * 1.001 and value != 1 for value in values)
    ]
    low, high = normalization.net_range()
    if beyond or high - low < _NARROW or max(abs(low), abs(high)) > _FAR:
        _log.warning(
            "an unusual normalisation%s: the net will see values from %.4g to %.4g. If it was trained with others, "
            "give `mean`, `std` and `scale` together: `scale=1` if mean and std are for pixels 0..255",
            f" ({' and '.join(beyond)} for pixels scaled to 0..{brightest:g})" if beyond else "",
            low,
            high,
        )


def _numbers(values: Triple) -> str:
    return ",".join(f"{value:g}" for value in values)
