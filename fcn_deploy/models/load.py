"""From a checkpoint file to a net and its spec, for published and custom nets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.models.checkpoint import load_model, read_checkpoint
from fcn_deploy.models.custom import load_custom
from fcn_deploy.models.spec_options import SpecOptions, check_variant, make_spec
from fcn_deploy.models.weights_options import WeightsOptions


@dataclass(frozen=True, eq=False)
class Net:
    """A net with its weights.

    Attributes:
        module: float [N, 3, H, W] to float [N, C, H, W], in evaluation mode.
        spec: What the net is.
    """

    module: nn.Module
    spec: ModelSpec


def load_net(
    weights: str | os.PathLike[str],
    options: SpecOptions | None = None,
    *,
    variant: str | None = None,
    shape: ImageShape | None = None,
    part: WeightsOptions | None = None,
    check: Callable[[nn.Module], None] | None = None,
) -> Net:
    """Loads a published net; or a custom net, if `options.model` says what makes it.

    Args:
        weights: `.pth` or `.safetensors`.
        options: What the user says about the net.
        variant: `fcn32s`, `fcn16s` or `fcn8s`: what the checkpoint of a published net must be; None for any.
        shape: The one shape that a custom net has to work at; None for every shape.
        part: Which part of the file holds the weights.
        check: Called with the net before long work begins: with a custom one before its weights are read. What it
            raises ends the loading.

    Raises:
        InputError: The file cannot be read or does not fit the net, or the custom net cannot be deployed.
        UsageError: `variant` is given for a custom net.
    """
    options = options or SpecOptions()
    if options.model is None:
        checkpoint = read_checkpoint(weights, variant, options.input_padding, part)
        spec = make_spec(checkpoint, options)
        module = load_model(checkpoint, spec.geometry)
        if check is not None:
            check(module)
        return Net(module, spec)
    check_variant(variant, options.model)
    custom = load_custom(options.model, weights, options.padding, shape, part, options.outputs, check)
    return Net(custom.module, make_spec(custom, options))


def load_reference(
    weights: str | os.PathLike[str],
    spec: ModelSpec,
    model: str | None = None,
    shape: ImageShape | None = None,
    part: WeightsOptions | None = None,
) -> Net:
    """Loads the net that an engine was made from, as the reference that the engine is compared with.

    Args:
        weights: `.pth` or `.safetensors`.
        spec: The engine's; classes, normalisation, geometry and padding are taken from it.
        model: What makes a custom net, `package.module:callable`. The spec names it too, but code runs only because the
            user names it, never because a file does.
        shape: The one shape that the engine takes; None if it takes any.
        part: Which part of the file holds the weights.

    Raises:
        InputError: The file cannot be read or does not fit the net, or has another number of classes than the spec.
        UsageError: The engine is of a custom or adopted net, and `model` is None.
    """
    if spec.adopted and model is None:
        raise UsageError(
            "the engine's net was an ONNX model, which has no PyTorch net to compare with",
            got=f"the weights {weights}",
            fix="compare it with the adopted model: name that as `reference`",
        )
    if spec.model is not None and model is None:
        raise UsageError("PyTorch needs the code that makes the engine's custom net", fix=f'add `model="{spec.model}"`')
    if model is not None:
        custom = load_custom(model, weights, spec.padding, shape, part, spec.outputs)
        net, channels = Net(custom.module, spec), custom.num_classes
    else:
        assert spec.geometry is not None
        checkpoint = read_checkpoint(weights, input_padding=spec.geometry.input_padding, weights=part)
        net, channels = Net(load_model(checkpoint, spec.geometry), spec), checkpoint.num_classes
    if channels != spec.channels:
        raise InputError(
            "checkpoint and engine are of different nets",
            got=f"a checkpoint of a net with {channels} output channel{'s' if channels != 1 else ''}",
            expected=f"{spec.channels}",
        )
    return net
