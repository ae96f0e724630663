"""`adopt`: an ONNX model that another tool exported becomes an exported model, checked against the original."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.normalization import Normalization, Preset, Triple
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.shapes import ImageShape, Layout
from fcn_deploy.artifacts.spec import METADATA_KEY, ONNX_LAYOUT, CheckpointInfo, ModelSpec
from fcn_deploy.engines.logits_size import check_logits_size
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import StrPath, sha256_bytes
from fcn_deploy.graph.external_data import read_with_weights
from fcn_deploy.graph.model import ExportedModel, serialize
from fcn_deploy.models.spec_options import AdoptedNet, SpecOptions, make_spec
from fcn_deploy.onnx_export.comparison import compare_models
from fcn_deploy.onnx_export.foreign import ForeignModel, read_foreign
from fcn_deploy.onnx_export.foreign_backend import ForeignBackend
from fcn_deploy.onnx_export.foreign_sizes import padding_needed, sizes_taken
from fcn_deploy.onnx_export.simplifier import simplified
from fcn_deploy.onnx_export.threshold import check_threshold, chosen_threshold, warn_of_probabilities
from fcn_deploy.passes import pipelines
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.quantization.prequantized import is_prequantized
from fcn_deploy.receptive_field import receptive_field
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows.parameters import channel_order, image_shape, input_file, output_file, padding, triple

if TYPE_CHECKING:
    from fcn_deploy.artifacts.receptive_field import ReceptiveField

_log = logging.getLogger(__name__)

# What a net that takes uint8 is given, because it normalises images itself.
_BYTES = Normalization("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# A model in FP16 rounds each tensor to 11 bits, and its adoption does not.
_ERROR_OF_FP16 = 0.02
_FIX = "adopt it with `simplify=False`, or for one fixed `shape`"


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
    fixed = None if shape is None else image_shape(shape)
    asked = padding(os.fspath(model), size_divisor, pad_mode)
    for name, value, known in (
        ("layout", layout, ("nchw", "nhwc")),
        ("resize_logits", resize_logits, ("bilinear", "nearest")),
    ):
        if value not in (None, *known):
            raise UsageError(f"bad `{name}`", got=repr(value), expected=" or ".join(known))
    options = SpecOptions(
        num_classes=num_classes,
        class_names=None if class_names is None else input_file(class_names),
        ignore_index=ignore_index,
        color=channel_order(color),
        scale=scale,
        mean=triple(mean, "mean"),
        std=triple(std, "std"),
        preset=normalization,
    )
    path = input_file(model)
    with progress.working(f"reading {path.name}"):
        content = read_with_weights(path)
        foreign = read_foreign(content, str(path), image=image, logits=logits, layout=layout, shape=fixed)
    info = CheckpointInfo(sha256_bytes(content), ONNX_LAYOUT)
    del content  # `foreign` has it, if it is still needed
    if asked is not None and shape is None and foreign.image.fixed is not None:
        raise UsageError("the model takes one size", got="`size_divisor`", fix="leave it out")
    half, quantized = _computes_in_fp16(foreign.model), is_prequantized(foreign.model)
    with ForeignBackend(foreign, layout, resize_logits) as reference:
        found = reference.logits
        reference.padding = padding_needed(reference, foreign.image, asked)
        net = AdoptedNet(path.stem, info, found.channels, padding=reference.padding)
        spec = make_spec(net, _with_bytes(options) if foreign.image.dtype == "uint8" else options)
        check_threshold(threshold, spec)
        with progress.working(f"adopting {spec.variant}, {spec.num_classes} classes"):
            lowering = pipelines.adopted(
                foreign.image.layout,
                foreign.image.sizes,
                found.layout,
                found.channels,
                resize_logits,
                reference.padding,
            )
            graph = lowering(foreign.model).model
            shapes, min_size = sizes_taken(reference, foreign.image, graph)
        spec = replace(spec, min_size=min_size)
        # onnxsim would make floats of weights that are stored as integers.
        adopted = _with_spec(graph, foreign, spec, threshold, simplify and not quantized, progress)
        adopted = _compared(adopted, reference, shapes, half, progress)
    if file is not None:
        adopted.save(file)
    return adopted


def _computes_in_fp16(model: ir.Model) -> bool:
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    return any(value.dtype == ir.DataType.FLOAT16 for value in (*values, *made))


def _with_bytes(options: SpecOptions) -> SpecOptions:
    """Adds the normalisation of a net that takes bytes as they are.

    Raises:
        UsageError: Another was stated.
    """
    stated = {"scale": options.scale, "mean": options.mean, "std": options.std, "normalization": options.preset}
    for name, value in stated.items():
        if value is not None and value != getattr(_BYTES, name, None):
            raise UsageError(
                "the model takes uint8, so it normalises images itself", got=f"`{name}`", fix="leave it out"
            )
    return replace(options, preset=None, scale=_BYTES.scale, mean=_BYTES.mean, std=_BYTES.std)


def _with_spec(
    model: ir.Model,
    foreign: ForeignModel,
    spec: ModelSpec,
    threshold: float | None,
    simplify: bool,
    progress: Progress,
) -> ExportedModel:
    producer = f"{foreign.model.producer_name or 'unknown'} {foreign.model.producer_version or ''}".strip()
    spec = replace(
        spec,
        exporter={"fcn_deploy": __version__, "producer": producer, "opset": model.opset_imports[""]},
        receptive_field=_receptive_field(model, spec, foreign.image.fixed),
        threshold=chosen_threshold(spec, threshold, model.graph),
    )
    model.metadata_props[METADATA_KEY] = spec.dumps()
    model.producer_name, model.producer_version = "fcn-deploy", __version__
    if not simplify:
        return ExportedModel.parse(serialize(model))
    with progress.working("simplifying"):
        return ExportedModel.parse(simplified(model))


def _receptive_field(model: ir.Model, spec: ModelSpec, fixed: ImageShape | None) -> ReceptiveField | None:
    """The receptive field; None if it cannot be computed for this graph."""
    try:
        return receptive_field(model, fixed=fixed, divisor=spec.padding.divisor if spec.padding else 1)
    except InputError as error:
        _log.debug("%s", error)
        return None


def _compared(
    model: ExportedModel, reference: ForeignBackend, shapes: list[ImageShape], half: bool, progress: Progress
) -> ExportedModel:
    check_logits_size(model)
    with OnnxRuntimeBackend(model.content, simulate_quantization=True) as candidate:
        limits = {"limit": _ERROR_OF_FP16} if half else {}
        error = compare_models(
            reference, candidate, shapes, "the original", progress, images=reference.noise, fix=_FIX, **limits
        )
    warn_of_probabilities(model.spec, reference, shapes[-1])
    if half:
        _log.info("the model computes in FP16; as adopted it is float32, and an FP16 engine can be built of it")
    return replace(model, error=error)
