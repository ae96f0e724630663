"""How an ONNX model that another tool exported becomes an exported model."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import METADATA_KEY, ONNX_LAYOUT, CheckpointInfo, ModelSpec
from fcn_deploy.engines.logits_size import check_logits_size
from fcn_deploy.errors import UsageError
from fcn_deploy.files import sha256_bytes
from fcn_deploy.graph.external_data import read_with_weights
from fcn_deploy.graph.model import ExportedModel, serialize
from fcn_deploy.models.spec_options import AdoptedNet, SpecOptions, make_spec
from fcn_deploy.onnx_export.comparison import compare_models
from fcn_deploy.onnx_export.foreign import ForeignModel, read_foreign
from fcn_deploy.onnx_export.foreign_backend import ForeignBackend
from fcn_deploy.onnx_export.foreign_sizes import check_batch, padding_needed, sizes_taken
from fcn_deploy.onnx_export.simplifier import simplified
from fcn_deploy.onnx_export.threshold import check_threshold, chosen_threshold, warn_of_probabilities
from fcn_deploy.passes import pipelines
from fcn_deploy.progress import Progress
from fcn_deploy.quantization.prequantized import is_prequantized
from fcn_deploy.receptive_field import find_receptive_field
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

if TYPE_CHECKING:
    from fcn_deploy.workflows.adopting import AdoptOptions

_log = logging.getLogger(__name__)

# What a net that takes uint8 is given, because it normalises images itself.
_BYTES = Normalization("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# A model in FP16 rounds each tensor to 11 bits, and its adoption does not.
_ERROR_OF_FP16 = 0.02
# How much the same image may differ in another batch, in which a library may add up in another order: the last bits, or
# a step of a type of few bits.
_EXACT, _ROUNDED = 1e-3, 0.02
_FIX = "adopt it with `simplify=False`, or for one fixed `shape`"


def adopted_model(path: Path, options: AdoptOptions, progress: Progress) -> ExportedModel:
    """Makes an exported model of an ONNX file, and compares the two.

    Args:
        path: The file.
        options: What the user says about it.
        progress: Told of each step.

    Raises:
        GateError: The adopted model gives other results than the original.
        InputError: The file is not an ONNX model, is not a segmentation net, or leaves a choice that was not made.
        UsageError: Options contradict the model.
    """
    outputs = options.outputs or Outputs()
    layout, resize = options.layout, outputs.resize
    with progress.working(f"reading {path.name}"):
        content = read_with_weights(path)
        foreign = read_foreign(
            content, str(path), image=options.image, logits=outputs.logits, layout=layout, shape=options.shape
        )
    info = CheckpointInfo(sha256_bytes(content), ONNX_LAYOUT)
    del content  # `foreign` has it, if it is still needed
    if options.padding is not None and options.shape is None and foreign.image.fixed is not None:
        raise UsageError("the model takes one size", got="`size_divisor`", fix="leave it out")
    half, quantized = _computes_in_fp16(foreign.model), is_prequantized(foreign.model)
    with ForeignBackend(foreign, layout, resize) as reference:
        found = reference.logits
        reference.padding = padding_needed(reference, foreign.image, options.padding)
        net = AdoptedNet(path.stem, info, found.channels, padding=reference.padding)
        spec = make_spec(net, _with_bytes(options.spec) if foreign.image.dtype == "uint8" else options.spec)
        check_threshold(options.threshold, spec)
        with progress.working(f"adopting {spec.variant}, {spec.num_classes} classes"):
            lowering = pipelines.adopted(
                foreign.image.layout, foreign.image.sizes, found.layout, found.channels, resize, reference.padding
            )
            graph = lowering(foreign.model).model
            shapes, min_size = sizes_taken(reference, foreign.image, graph)
            check_batch(reference, shapes, _ROUNDED if half or quantized else _EXACT)
        spec = replace(spec, min_size=min_size)
        # onnxsim would make floats of weights that are stored as integers.
        simplify = options.simplify and not quantized
        adopted = _with_spec(graph, foreign, spec, options.threshold, simplify, progress)
        return _compared(adopted, reference, shapes, half, progress)


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
        receptive_field=find_receptive_field(model, foreign.image.fixed, spec.padding),
        threshold=chosen_threshold(spec, threshold, model.graph),
    )
    model.metadata_props[METADATA_KEY] = spec.dumps()
    model.producer_name, model.producer_version = "fcn-deploy", __version__
    if not simplify:
        return ExportedModel.parse(serialize(model))
    with progress.working("simplifying"):
        return ExportedModel.parse(simplified(model))


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
