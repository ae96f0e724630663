"""Traces a net with torch.export and writes it as ONNX: for any batch, height and width, or for one fixed shape."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.receptive_field import ReceptiveField
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import ROOT, AdaptedNet
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.onnx_export.guards import Guard, find_violated_guards
from fcn_deploy.onnx_export.threshold import check_threshold, chosen_threshold
from fcn_deploy.passes import pipelines
from fcn_deploy.receptive_field import receptive_field

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_log = logging.getLogger(__name__)

# The shape that a dynamic graph is traced with: more than one image, and odd sizes that neither equal nor divide one
# another, so that torch.export takes none of them for a constant and no two of them for the same size.
TRACED = ImageShape(2, 67, 93)
_DIMS = {0: "batch", 2: "height", 3: "width"}


def export_onnx(
    model: nn.Module, spec: ModelSpec, config: ExportConfig | None = None
) -> tuple[onnx.ModelProto, list[Guard]]:
    """Exports a net to ONNX.

    Args:
        model: float [N, 3, H, W] to float [N, C, H, W], in evaluation mode.
        spec: What the net is; it goes into the metadata, with the exporter's versions, the receptive field and the
            threshold of a binary net added.
        config: Opset and shape; if None, the defaults.

    Returns:
        A model with the input `image`, float32 [N, 3, H, W], and the output `logits`, float32 [N, C, H, W], whose nodes
        are named after the net's modules; and the guards that some image violates, which the caller has to try (see
        `comparison.require_harmless`).

    Raises:
        DependencyError: This version of torch does not give access to its guards.
        InputError: torch cannot export the net, or wrote another opset.
        UsageError: A threshold for a net with a channel for each class.
    """
    config = config or ExportConfig()
    import onnx_ir as ir

    check_threshold(config.threshold, spec)
    traced = config.shape or TRACED.at_least(spec.min_size)
    with _quiet_exporter():
        program = _trace(model, traced, dynamic=config.shape is None)
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
        receptive_field=_receptive_field(exported, spec, config.shape),
        threshold=chosen_threshold(spec, config.threshold, exported.graph),
    )
    exported.metadata_props[METADATA_KEY] = spec.dumps()
    exported.producer_name, exported.producer_version = "fcn-deploy", __version__
    return ir.to_proto(exported), find_violated_guards(program, traced, spec.min_size) if config.shape is None else []


def traced_threshold(model: nn.Module, spec: ModelSpec) -> float | None:
    """Returns the threshold of a net as `export_onnx` chooses it; None for one with a channel for each class.

    Args:
        model: As for `export_onnx`.
        spec: What the net is.

    Raises:
        InputError: torch cannot export the net.
    """
    if spec.threshold != 0:  # the checkpoint's spec has it, or there is none
        return spec.threshold
    with _quiet_exporter():
        exported = _convert(_trace(model, TRACED.at_least(spec.min_size), dynamic=True), ExportConfig())
    exported = pipelines.after_torch(ROOT if isinstance(model, AdaptedNet) else "")(exported).model
    return chosen_threshold(spec, None, exported.graph)


def _receptive_field(model: ir.Model, spec: ModelSpec, fixed: ImageShape | None) -> ReceptiveField | None:
    """The receptive field; None if it cannot be computed for this graph."""
    try:
        return receptive_field(model, fixed=fixed, divisor=spec.padding.divisor if spec.padding else 1)
    except InputError as error:
        _log.debug("%s", error)
        return None


def _trace(model: nn.Module, shape: ImageShape, dynamic: bool) -> torch.export.ExportedProgram:
    example = torch.zeros(shape.batch, 3, shape.height, shape.width)
    dims = (dict.fromkeys(_DIMS, torch.export.Dim.DYNAMIC),) if dynamic else None
    try:
        with redirect_stdout(sys.stderr):  # the user's code may print
            return torch.export.export(model, (example,), dynamic_shapes=dims, strict=False)
    except InputError:
        raise
    # What torch.export refuses, and everything that the user's code can raise when sizes are symbols.
    except (Exception, SystemExit) as error:
        raise InputError(
            "torch cannot export this net",
            got=_message(error),
            expected="a net that torch.export takes",
            fix="remove conditions on values or sizes from its Python code"
            + (", or export for one size with `shape`" if dynamic else ""),
        ) from error


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


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hides torch's messages about itself, which do not help the user."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        try:
            yield
        finally:
            logger.setLevel(level)
