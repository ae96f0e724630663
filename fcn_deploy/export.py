"""torch to ONNX: any batch, height and width, or one fixed shape."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from fcn_deploy import __version__, passes
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.spec import METADATA_KEY, ImageShape, ModelSpec

if TYPE_CHECKING:
    import onnx

# What is traced when the graph is to stay dynamic: more than one image, and odd sizes of which none divides or equals
# another, so that torch.export has no reason to take any of them for a constant or for one another.
_TRACED = ImageShape(2, 67, 93)


@dataclass(frozen=True)
class ExportConfig:
    """How to export.

    Attributes:
        opset: ONNX operator set, 18 to 23.
        shape: Fixes batch, height and width; all three are dynamic where None.
    """

    opset: int = 18
    shape: ImageShape | None = None

    def __post_init__(self) -> None:
        if not 18 <= self.opset <= 23:
            raise UsageError("unsupported opset", got=self.opset, expected="18 to 23")


def export_onnx(model: nn.Module, spec: ModelSpec, config: ExportConfig | None = None) -> onnx.ModelProto:
    """Exports a net.

    Args:
        model: float [N, 3, H, W] to float [N, C, H, W], in evaluation mode.
        spec: What the net is; it goes into the metadata, with the exporter's versions added.
        config: Opset and shape.

    Returns:
        A model with input `image` and output `logits`, whose nodes are named after the net's modules.

    Raises:
        InputError: torch cannot export the net, or wrote another opset.
    """
    config = config or ExportConfig()
    import onnx_ir as ir

    shape = config.shape or _TRACED
    dims = {0: "batch", 2: "height", 3: "width"}
    dynamic = None if config.shape else ({axis: torch.export.Dim(name) for axis, name in dims.items()},)
    example = torch.zeros(shape.batch, 3, shape.height, shape.width)
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=config.opset,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=dynamic,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            raise InputError("torch cannot export this net", got=str(cause).strip().split("\n")[0]) from error
    assert program is not None
    exported = passes.run(program.model, passes.EXPORTED)
    if exported.opset_imports.get("") != config.opset:
        raise InputError(
            "torch wrote another opset",
            got=exported.opset_imports.get(""),
            expected=config.opset,
            fix="export with --opset 18",
        )
    versions: dict[str, str | int] = {
        "fcn_deploy": __version__,
        "torch": str(torch.__version__).split("+")[0],
        "opset": config.opset,
    }
    exported.metadata_props[METADATA_KEY] = replace(spec, exporter=versions).dumps()
    exported.producer_name, exported.producer_version = "fcn-deploy", __version__
    return ir.to_proto(exported)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keeps what torch says about itself, of no use to the user, off the terminal."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        try:
            yield
        finally:
            logger.setLevel(level)
