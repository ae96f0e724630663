"""`adopt`: an ONNX model that another tool exported becomes an exported model, checked against the original."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fcn_deploy.artifacts.geometry import AutoPadding, Padding, PadMode, SizeDivisor
from fcn_deploy.artifacts.normalization import Preset, Triple
from fcn_deploy.artifacts.outputs import Outputs, ResizeMode
from fcn_deploy.artifacts.shapes import ImageShape, Layout
from fcn_deploy.errors import UsageError
from fcn_deploy.files import StrPath
from fcn_deploy.graph.header import check_onnx_file
from fcn_deploy.models.spec_options import SpecOptions
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.workflows.net_options import check_classes
from fcn_deploy.workflows.parameters import (
    channel_order,
    image_shape,
    input_file,
    output_file,
    outputs,
    padding,
    triple,
)

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel


@dataclass(frozen=True)
class AdoptOptions:
    """What the user says about a model, checked before a library that reads it is imported; see `adopt`.

    Attributes:
        spec: What goes into the spec.
        image: The input that takes images; None for the only one.
        outputs: What of it gives the logits, and how they are resized; None if nothing was said.
        layout: If shapes do not tell.
        padding: How images are padded; None if they are not.
        threshold: Of a binary net.
        shape: Fixes the sizes that the model leaves open.
        simplify: Whether onnxsim runs.

    Raises:
        UsageError: `layout` or `threshold` has an unknown value.
    """

    spec: SpecOptions
    image: str | None = None
    outputs: Outputs | None = None
    layout: Layout | None = None
    padding: Padding | AutoPadding | None = None
    threshold: float | None = None
    shape: ImageShape | None = None
    simplify: bool = True

    def __post_init__(self) -> None:
        if self.layout not in (None, "nchw", "nhwc"):
            raise UsageError("bad `layout`", got=repr(self.layout), expected="nchw or nhwc")
        ExportConfig(threshold=self.threshold)  # checks it


def adopt(
    model: StrPath,
    *,
    image: str | None = None,
    logits: str | int | None = None,
    layout: Layout | None = None,
    resize_logits: ResizeMode | None = None,
    size_divisor: SizeDivisor | None = None,
    pad_mode: PadMode | None = None,
    num_classes: int | None = None,
    class_names: StrPath | None = None,
    ignore_index: int | None = None,
    normalization: Preset | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    scale: float | None = None,
    color: Literal["rgb", "bgr"] | None = None,
    threshold: float | None = None,
    shape: str | ImageShape | None = None,
    simplify: bool = True,
    output: StrPath | None = None,
    progress: Progress | None = None,
) -> ExportedModel:
    """Makes an exported model of an ONNX file that another tool exported, and compares the two.

    Calibration, engines and all the rest then work as for a net that `export` wrote.

    Args:
        model: The ONNX file. Weights that it keeps in other files are embedded.
        image: The input that takes images: float32, float16 or uint8, [N, 3, H, W] or [N, H, W, 3]. Needed only if
            there are several.
        logits: The name or index of the output that gives the logits, or the name of a tensor inside, such as the one
            before an ArgMax. If None: the only output, or the one called `logits` or `out`.
        layout: `nchw` or `nhwc`, if shapes do not tell: channels first or last.
        resize_logits: Resizes coarse logits to the size of the image, in the graph: `bilinear` or `nearest`.
        size_divisor: The model works at multiples of this size only; images are padded in the graph. `auto` runs the
            model to find out, and pads only if it must.
        pad_mode: How they are padded: `edge` (the default), `zero` or `reflect`.
        num_classes: Checked against the model.
        class_names: A CSV file, one class a line: `name` or `name,red,green,blue`.
        ignore_index: The label that means "not labelled"; 255 if None.
        normalization: How images were normalised in training, instead of `mean`, `std` and `scale`: `imagenet`
            (torchvision's), `caffe` (BGR 0..255 minus the mean), `zero-one`, `minus-one-one`.
        mean: Per channel, after `scale`, in the net's channel order.
        std: Likewise; positive.
        scale: Factor for pixels in 0..255.
        color: The net's channel order; RGB if None.
        threshold: Of a binary net, which has one output channel: a pixel's label is 1 if its value is greater, else 0.
            If None, 0.5 for a net that ends in a sigmoid, else 0, for a logit.
        shape: Fixes the batch, height and width that the model leaves open: `NxHxW` or `HxW`.
        simplify: Whether onnxsim runs; it never does on a model with Q/DQ.
        output: The `.onnx` file to write, after everything has been checked; nothing is written if None.
        progress: Told of each step.

    Returns:
        The model; its `error` is the largest difference from the original over the sizes compared, as a share of the
        logits' range.

    Raises:
        GateError: The adopted model gives other results than the original; nothing is written.
        InputError: The file is not an ONNX model, is not a segmentation net, or leaves a choice that was not made.
        UsageError: Options do not go together, or contradict the model.

    Example:
        >>> import fcn_deploy as fd
        >>> model = fd.adopt("unet.onnx", normalization="imagenet", output="adopted.onnx")
    """
    progress = progress or Silent()
    file = output_file(output, (".onnx",), reads=(model, class_names))
    check_classes(num_classes, class_names)
    options = AdoptOptions(
        image=image,
        outputs=outputs(os.fspath(model), logits, resize_logits),
        layout=layout,
        padding=padding(os.fspath(model), size_divisor, pad_mode),
        spec=SpecOptions(
            num_classes=num_classes,
            class_names=None if class_names is None else input_file(class_names),
            ignore_index=ignore_index,
            color=channel_order(color),
            scale=scale,
            mean=triple(mean, "mean"),
            std=triple(std, "std"),
            preset=normalization,
        ),
        threshold=threshold,
        shape=None if shape is None else image_shape(shape),
        simplify=simplify,
    )
    path = input_file(model)
    check_onnx_file(path)
    # Imported here, because the libraries that read and run models take a second.
    from fcn_deploy.workflows.adoption import adopted_model

    adopted = adopted_model(path, options, progress)
    if file is not None:
        adopted.save(file)
    return adopted
