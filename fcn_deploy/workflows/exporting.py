"""`export` and `simplify`: a checkpoint becomes an ONNX model that gives PyTorch's results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.normalization import Preset, Triple
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.files import StrPath, temporary_folder
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.workflows.models import check_model, exported_model
from fcn_deploy.workflows.net_options import NetOptions, Variant
from fcn_deploy.workflows.parameters import image_shape, output_file, weights_file

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel
    from fcn_deploy.models.load import Net
    from fcn_deploy.onnx_export.guards import Guard
    from fcn_deploy.onnx_export.recording import RecordedBackend

_ONNX = (".onnx",)
# Bytes of weights below which PyTorch runs a net in one thread. In a slim net several threads wait for each other more
# than they compute, and waiting takes CPU time: 4 s instead of 0.2 s on a busy machine with two cores.
_SMALL = 16 << 20


def export(
    weights: StrPath,
    *,
    variant: Variant | None = None,
    model: str | None = None,
    size_divisor: SizeDivisor | None = None,
    pad_mode: PadMode | None = None,
    logits: str | int | None = None,
    resize_logits: ResizeMode | None = None,
    weights_key: str | None = None,
    weights_prefix: str | None = None,
    weights_ignore: Sequence[str] | str = (),
    num_classes: int | None = None,
    class_names: StrPath | None = None,
    ignore_index: int | None = None,
    normalization: Preset | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    scale: float | None = None,
    at_once: bool = False,
    input_padding: Literal[0, 100] | None = None,
    color: Literal["rgb", "bgr"] | None = None,
    threshold: float | None = None,
    opset: int = 18,
    shape: str | ImageShape | None = None,
    simplify: bool = True,
    output: StrPath | None = None,
    on_loaded: Callable[[ModelSpec], None] | None = None,
    progress: Progress | None = None,
) -> ExportedModel:
    """Exports a checkpoint to ONNX with dynamic batch, height and width, and compares the result with PyTorch.

    Args:
        weights: The checkpoint, `.pth` or `.safetensors`.
        variant: What the checkpoint must be; any of the published nets if None.
        model: What makes a custom net, `package.module:callable`: your code runs.
        size_divisor: The custom net works at multiples of this size only; images are padded in the graph. `auto` runs
            the net to find out, and pads only if it must.
        pad_mode: How they are padded: `edge` (the default), `zero` or `reflect`.
        logits: The key, attribute or index of the logits in what the custom net returns, with dots for nested outputs.
            If None: its only tensor, or the one under `out` or `logits`.
        resize_logits: Resizes the custom net's logits to the size of the image, in the graph: `bilinear` or `nearest`.
        weights_key: The entry of the checkpoint that holds the weights, such as `model_ema`; `outer.inner` for one in
            another. Needed only if several could be meant.
        weights_prefix: Only tensors under this prefix are taken, without it.
        weights_ignore: Globs; the checkpoint's entries that match one are left out.
        num_classes: Checked against the checkpoint.
        class_names: A CSV file, one class a line: `name` or `name,red,green,blue`.
        ignore_index: The label that means "not labelled"; if None, that of the checkpoint's spec, else 255.
        normalization: How images were normalised in training, instead of `mean`, `std` and `scale`: `imagenet`
            (torchvision's), `caffe` (BGR 0..255 minus the mean), `zero-one`, `minus-one-one`.
        mean: Per channel, after `scale`, in the net's channel order.
        std: Likewise; positive.
        scale: Factor for pixels in 0..255.
        at_once: Whether the skips are scaled by 0.01 and 0.0001, as in FCN-8s trained at once.
        input_padding: 0 for a net of pytorch-fcn's layout without the paper's padding of 100.
        color: The net's channel order; the layout's, else RGB, if None.
        threshold: Of a binary net, which has one output channel: a pixel's label is 1 if its value is greater, else 0.
            If None, 0.5 for a net that ends in a sigmoid, else 0, for a logit.
        opset: ONNX operator set, 18 to 23.
        shape: Fixes batch, height and width: `NxHxW` or `HxW`; all three are dynamic if None.
        simplify: Whether onnxsim runs.
        output: The `.onnx` file to write, after everything has been checked; nothing is written if None.
        on_loaded: Called with the spec after the checkpoint has been read and before anything is exported. What it
            raises ends the export.
        progress: Told of each step.

    Returns:
        The model; its `error` is the largest difference from PyTorch over the sizes compared, as a share of the
        logits' range.

    Raises:
        GateError: The model gives other results than PyTorch; nothing is written.
        InputError: The checkpoint cannot be read or exported, or the output cannot be written.
        UsageError: Options do not go together.

    Example:
        >>> import fcn_deploy as fd
        >>> model = fd.export("fcn8s.pth", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
        >>> model.save("fcn8s.onnx")
    """
    progress = progress or Silent()
    options = NetOptions(
        variant=variant,
        model=model,
        size_divisor=size_divisor,
        pad_mode=pad_mode,
        logits=logits,
        resize_logits=resize_logits,
        weights_key=weights_key,
        weights_prefix=weights_prefix,
        weights_ignore=weights_ignore,
        num_classes=num_classes,
        class_names=class_names,
        ignore_index=ignore_index,
        normalization=normalization,
        mean=mean,
        std=std,
        scale=scale,
        at_once=at_once,
        input_padding=input_padding,
        color=color,
        threshold=threshold,
    )
    config = ExportConfig(opset, None if shape is None else image_shape(shape), threshold)
    file = output_file(output, _ONNX, reads=(weights, class_names))
    checkpoint = weights_file(weights)
    # Imported here: a machine that builds engines from an exported model need not have torch.
    with progress.working("loading PyTorch"):
        from fcn_deploy.models.load import load_net
        from fcn_deploy.models.size import Weights, check_size

    with progress.working(f"reading {checkpoint.name}"):
        net = load_net(
            checkpoint, options.spec, variant=variant, shape=config.shape, part=options.part, check=check_size
        )
    if on_loaded is not None:
        on_loaded(net.spec)
    with temporary_folder() as folder:
        # Of PyTorch, onnxsim and ONNX Runtime no two hold the weights at the same time.
        kept = Weights(net.module)
        traced = _traced(net, config, folder, progress)
        del net
        kept.release()
        exported = _compared(traced, simplify, progress)
    if file is not None:
        exported.save(file)
    return exported


@dataclass(frozen=True, eq=False)
class _Traced:
    """A net as torch exported it, in files: the net itself may leave the memory.

    Attributes:
        file: The ONNX model, not simplified.
        spec: What the net is, as the model's metadata say.
        reference: What PyTorch gives for the images that the model is compared on.
        guards: What torch assumed of sizes.
        shapes: Of the images that any net is compared on.
    """

    file: Path
    spec: ModelSpec
    reference: RecordedBackend
    guards: list[Guard]
    shapes: list[ImageShape]


def _traced(net: Net, config: ExportConfig, folder: Path, progress: Progress) -> _Traced:
    """Exports a net to a file, and runs it in PyTorch on all images that the file is compared on."""
    from fcn_deploy.artifacts.spec import METADATA_KEY
    from fcn_deploy.graph.external_data import write_with_external_weights
    from fcn_deploy.models.backend import TorchBackend
    from fcn_deploy.models.size import weights_size
    from fcn_deploy.onnx_export.comparison import comparison_shapes, noise, shapes_of
    from fcn_deploy.onnx_export.recording import record
    from fcn_deploy.onnx_export.tracing import empty_model, export_onnx

    file = folder / "traced.onnx"
    with progress.working(f"exporting {net.spec.variant}, {net.spec.num_classes} classes"):
        model, guards = export_onnx(net.module, net.spec, config)
        write_with_external_weights(model, file)
        empty_model(model)
    spec = ModelSpec.loads(model.metadata_props[METADATA_KEY])
    threads = 1 if weights_size(net.module) < _SMALL else None
    with TorchBackend(net.module, spec.channels, threads=threads) as pytorch:
        shapes = [config.shape] if config.shape else comparison_shapes(pytorch, spec.min_size)
        all_shapes = list(dict.fromkeys([*shapes_of(guards), *shapes]))
        images = (noise(shape) for shape in progress.track(all_shapes, len(all_shapes), "running PyTorch"))
        reference = record(pytorch, images, folder)
    return _Traced(file, spec, reference, guards, shapes)


def _compared(traced: _Traced, simplified: bool, progress: Progress) -> ExportedModel:
    """Simplifies what torch exported, and compares the file that comes of it with PyTorch."""
    from fcn_deploy.graph.external_data import read_with_weights
    from fcn_deploy.graph.model import ExportedModel
    from fcn_deploy.onnx_export.comparison import compare_models, require_harmless
    from fcn_deploy.onnx_export.simplifier import simplify_file
    from fcn_deploy.onnx_export.threshold import warn_of_probabilities
    from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

    file, guards, reference = traced.file, traced.guards, traced.reference
    if simplified:
        file = file.with_name("simplified.onnx")
        with progress.working("simplifying"):
            simplify_file(traced.file, file)
    with OnnxRuntimeBackend(file, what="the model") as candidate:
        if guards:  # first a size that meets all guards, or one would be blamed for what is wrong at every size
            compare_models(reference, candidate, (guards[0].met_by,), "PyTorch", Silent())
        for guard in progress.track(guards, len(guards), "trying what torch assumed of sizes") if guards else ():
            require_harmless(guard, reference, candidate)
        error = compare_models(reference, candidate, traced.shapes, "PyTorch", progress)
    warn_of_probabilities(traced.spec, reference, traced.shapes[:2][-1])
    return replace(ExportedModel.parse(read_with_weights(file)), error=error)


def simplify(
    model: StrPath | ExportedModel, *, output: StrPath | None = None, progress: Progress | None = None
) -> ExportedModel:
    """Simplifies an exported model with onnxsim, and compares the result with the original.

    Args:
        model: An exported ONNX file, or one that is loaded.
        output: The `.onnx` file to write; nothing is written if None.
        progress: Told of each step.

    Raises:
        DependencyError: onnxsim is not installed.
        GateError: The simplified model gives other results; nothing is written.
        InputError: It is not an exported model, onnxsim failed, or the output cannot be written.
    """
    progress = progress or Silent()
    file = output_file(output, _ONNX, reads=(model,))
    check_model(model)
    from fcn_deploy.graph.model import ExportedModel, serialize
    from fcn_deploy.onnx_export.comparison import compare_models, comparison_shapes
    from fcn_deploy.onnx_export.simplifier import simplified
    from fcn_deploy.passes.forget_shapes import ForgetShapes
    from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

    original = exported_model(model)
    with progress.working(f"simplifying {original.spec.variant}"):
        # An older version may have stated shapes that hold for one size only.
        plain = ForgetShapes()(original.copy()).model
        content = simplified(plain)
    with OnnxRuntimeBackend(serialize(plain)) as reference, OnnxRuntimeBackend(content) as candidate:
        error = compare_models(
            reference, candidate, comparison_shapes(reference, original.spec.min_size), "the original", progress
        )
    exported = replace(ExportedModel.parse(content), error=error)
    if file is not None:
        exported.save(file)
    return exported
