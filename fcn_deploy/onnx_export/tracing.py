"""Traces a net with torch.export and writes it as ONNX: for any batch, height and width, or for one fixed shape."""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import ROOT, AdaptedNet
from fcn_deploy.onnx_export.comparison import made_a_number
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.onnx_export.divisions import round_down
from fcn_deploy.onnx_export.guards import Guard, find_violated_guards
from fcn_deploy.onnx_export.messages import to_debug_log
from fcn_deploy.onnx_export.pooling import Pooling
from fcn_deploy.onnx_export.sizes import int_keeps_symbols, numbers_noted, place_of_error
from fcn_deploy.onnx_export.threshold import check_threshold, chosen_threshold
from fcn_deploy.passes import pipelines
from fcn_deploy.receptive_field import find_receptive_field

if TYPE_CHECKING:
    import onnx_ir as ir

_log = logging.getLogger(__name__)

# The shape that a dynamic graph is traced with: more than one image, and odd sizes that neither equal nor divide one
# another, so that torch.export takes none of them for a constant and no two of them for the same size. Large, because
# torch takes a map that is 1x1 at this size for one that is 1x1 at every size. Only shapes are traced, no pixels.
TRACED = ImageShape(2, 1031, 1543)
# For nets in which a pooled map is 1x1 even so.
_TRACED_LARGER = ImageShape(2, 4127, 6173)
# The operators whose outputs are 1x1 because of the size of the image, not because a single value was asked for.
_WINDOWED = ("aten.conv", "aten.avg_pool", "aten.max_pool")
_DIMS = {0: "batch", 2: "height", 3: "width"}


def export_onnx(model: nn.Module, spec: ModelSpec, config: ExportConfig | None = None) -> tuple[ir.Model, list[Guard]]:
    """Exports a net to ONNX.

    Args:
        model: float [N, 3, H, W] to float [N, C, H, W], in evaluation mode.
        spec: What the net is; it goes into the metadata, with the exporter's versions, the receptive field and the
            threshold of a binary net added.
        config: Opset and shape; if None, the defaults.

    Returns:
        A model with the input `image`, float32 [N, 3, H, W], and the output `logits`, float32 [N, C, H, W], whose nodes
        are named after the net's modules and whose weights are those of the net, not a copy; and the guards that some
        image violates, which the caller has to try (see `comparison.require_harmless`).

    Raises:
        DependencyError: This version of torch does not give access to its guards.
        InputError: torch cannot export the net, or wrote another opset.
        UsageError: A threshold for a net with a channel for each class.
    """
    config = config or ExportConfig()
    check_threshold(config.threshold, spec)
    traced = config.shape or TRACED.at_least(spec.min_size)
    with to_debug_log():
        program, numbers = _trace(model, traced, config)
        if config.shape is None and _has_one_cell(program):
            traced = _TRACED_LARGER
            program, numbers = _trace(model, traced, config)
        round_down(program)
        exported = _convert(program, config)
    exported = pipelines.after_torch(ROOT if isinstance(model, AdaptedNet) else "")(exported).model
    if exported.opset_imports.get("") != config.opset:
        raise InputError(
            "torch wrote another opset",
            got=exported.opset_imports.get(""),
            expected=config.opset,
            fix="export with `opset=18`",
        )
    versions: dict[str, str | int] = {
        "fcn_deploy": __version__,
        "torch": str(torch.__version__).split("+")[0],
        "opset": config.opset,
    }
    spec = replace(
        spec,
        exporter=versions,
        receptive_field=find_receptive_field(exported, config.shape, spec.padding),
        threshold=chosen_threshold(spec, config.threshold, exported.graph),
    )
    exported.metadata_props[METADATA_KEY] = spec.dumps()
    exported.producer_name, exported.producer_version = "fcn-deploy", __version__
    guards = [] if config.shape else find_violated_guards(program, traced, spec.min_size, numbers)
    return exported, guards


def empty_model(model: ir.Model) -> None:
    """Takes the weights out of an exported model that has been written and is of no further use.

    To drop the model would not do: onnxscript's rewriter keeps the last graph that it has seen.

    Args:
        model: As `export_onnx` returns it.
    """
    for value in model.graph.initializers.values():
        value.const_value = None


def traced_threshold(model: nn.Module, spec: ModelSpec) -> float | None:
    """Returns the threshold of a net as `export_onnx` chooses it; None for one with a channel for each class.

    Args:
        model: As for `export_onnx`.
        spec: What the net is.

    Raises:
        InputError: torch cannot export the net.
    """
    if spec.threshold != 0:  # the checkpoint states it, or the net is not binary
        return spec.threshold
    with to_debug_log():
        program, _ = _trace(model, TRACED.at_least(spec.min_size), ExportConfig())
        exported = _convert(program, ExportConfig())
    exported = pipelines.after_torch(ROOT if isinstance(model, AdaptedNet) else "")(exported).model
    return chosen_threshold(spec, None, exported.graph)


def _trace(model: nn.Module, shape: ImageShape, config: ExportConfig) -> tuple[torch.export.ExportedProgram, list[str]]:
    """Traces a net; returns also where its code makes a number of a size, which then holds for this size only."""
    if config.shape is not None:
        return _traced(model, shape, config), []
    failure: InputError | None = None
    with numbers_noted(model) as numbers:
        try:
            program = _traced(model, shape, config)
        except InputError as error:
            failure = error
    if numbers:
        # Only now, because in the code of a net that does not need it, `int` had better be what it is.
        with numbers_noted(model) as numbers, int_keeps_symbols(model):
            try:
                return _traced(model, shape, config), numbers
            except InputError as error:
                failure = error
    if failure is None:
        return program, numbers
    if not numbers:
        raise failure
    raise made_a_number(numbers) from failure


def _traced(model: nn.Module, shape: ImageShape, config: ExportConfig) -> torch.export.ExportedProgram:
    example = torch.zeros(shape.batch, 3, shape.height, shape.width)
    dims = (dict.fromkeys(_DIMS, torch.export.Dim.DYNAMIC),) if config.shape is None else None
    try:
        with redirect_stdout(sys.stderr), Pooling():  # the user's code may print
            return torch.export.export(model, (example,), dynamic_shapes=dims, strict=False)
    except InputError as error:
        raise _at(error, place_of_error(error, model)) from error
    # What torch.export refuses, and everything that the user's code can raise when sizes are symbols.
    except (Exception, SystemExit) as error:
        refusal = InputError(
            "torch cannot export this net",
            got=_message(error),
            expected="a net that torch.export takes",
            fix="remove conditions on values or sizes from its Python code"
            + (", or export for one size with `shape`" if dims else ""),
        )
        raise _at(refusal, place_of_error(error, model)) from error


def _at(error: InputError, place: str | None) -> InputError:
    if place is None:
        return error
    return InputError(error.what, got=f"{error.got}, at {place}", expected=error.expected, fix=error.fix)


def _has_one_cell(program: torch.export.ExportedProgram) -> bool:
    """Whether a map that varies with the size of the image has one row or one column at the size that was traced."""
    return any(
        any(isinstance(size, torch.SymInt) and size.node.hint == 1 for size in after)
        or (any(name in str(node.target) for name in _WINDOWED) and 1 in after and 1 not in before)
        for node in program.graph.nodes
        if (after := _rows_and_columns(node)) and (before := _rows_and_columns(*node.args[:1]))
    )


def _rows_and_columns(node: object = None) -> tuple[int | torch.SymInt, ...]:
    value = getattr(node, "meta", {}).get("val")
    return tuple(value.shape[2:]) if isinstance(value, torch.Tensor) and value.ndim == 4 else ()


def _convert(program: torch.export.ExportedProgram, config: ExportConfig) -> ir.Model:
    try:
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=config.opset,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=None if config.shape else (_DIMS,),
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise InputError("torch cannot export this net to ONNX", got=_message(cause)) from error
    assert converted is not None
    return converted.model


def _message(error: BaseException) -> str:
    """The lines of torch's message that are about this net, guards among them, without its general advice."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    guards = [line.removeprefix("- ") for line in lines if "guard" in line and line.startswith("- ")]
    return " ".join(guards or lines[:1]) or type(error).__name__
