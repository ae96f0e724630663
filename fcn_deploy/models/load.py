"""From a checkpoint file to a net and its spec, whoever made the net."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.models.checkpoint import load_model, read_checkpoint
from fcn_deploy.models.custom import load_custom
from fcn_deploy.models.spec_options import SpecOptions, make_spec


@dataclass(frozen=True, eq=False)
class Net:
    """A net with its weights.

    Attributes:
        module: float [N, 3, H, W] to float [N, C, H, W], in evaluation mode.
        spec: What it is.
    """

    module: nn.Module
    spec: ModelSpec


def load_net(
    weights: Path,
    options: SpecOptions | None = None,
    *,
    variant: str | None = None,
    shape: ImageShape | None = None,
) -> Net:
    """Loads one of the published nets, or one of the user's own where `options.model` says what makes it.

    Args:
        weights: `.pth` or `.safetensors`.
        options: What the user says about the net.
        variant: What the checkpoint must be, or None; for the published nets.
        shape: The one shape it has to work at; any where None.

    Raises:
        InputError: The file cannot be read or does not fit the net, or the user's net cannot be deployed.
        UsageError: A variant for a net of the user's own.
    """
    options = options or SpecOptions()
    if options.model is None:
        checkpoint = read_checkpoint(weights, variant, options.input_padding)
        spec = make_spec(checkpoint, options)
        return Net(load_model(checkpoint, spec.geometry), spec)
    if variant is not None:
        raise UsageError("a net is one of the published or your own", got="--variant and --model", expected="one")
    own = load_custom(options.model, weights, options.padding, shape)
    return Net(own.module, make_spec(own, options))


def load_reference(weights: Path, spec: ModelSpec, model: str | None = None, shape: ImageShape | None = None) -> Net:
    """Loads the net that an engine was made from, to compare the engine with it.

    Args:
        weights: `.pth` or `.safetensors`.
        spec: The engine's, whose classes, normalisation and shape the net gets.
        model: What makes a net of the user's own. The spec has its name too; but code runs because the user names it,
            never because a file does.
        shape: The one shape the engine takes; None where it takes any.

    Raises:
        InputError: The file cannot be read or does not fit the net, or has other classes than the spec.
        UsageError: The engine is of a net of the user's own, and `model` does not say what makes it.
    """
    if spec.model is not None and model is None:
        raise UsageError("PyTorch needs the code that makes this engine's net", fix=f"add --model {spec.model}")
    if model is not None:
        own = load_custom(model, weights, spec.padding, shape)
        net, num_classes = Net(own.module, spec), own.num_classes
    else:
        assert spec.geometry is not None
        checkpoint = read_checkpoint(weights, input_padding=spec.geometry.input_padding)
        net, num_classes = Net(load_model(checkpoint, spec.geometry), spec), checkpoint.num_classes
    if num_classes != spec.num_classes:
        raise InputError(
            "checkpoint and engine are of different nets",
            got=f"a checkpoint with {num_classes} classes",
            expected=f"{spec.num_classes}",
        )
    return net
