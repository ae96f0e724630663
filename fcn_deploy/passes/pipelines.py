"""ONNX to ONNX rewrites, one a file, and the ordered pipeline of each target.

A pass is a function `model -> (model, changed)` on an `onnx_ir.Model`, which it may change in place. Every pass keeps
the numbers. One that finds nothing to do, or declines, says why in the debug log.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Sequence

import onnx_ir as ir

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.passes.channels_last import quantize_channels_last
from fcn_deploy.passes.early_argmax import label_early
from fcn_deploy.passes.fold_quantized_weights import store_weights
from fcn_deploy.passes.fp16 import QDQ_OPSET, to_half
from fcn_deploy.passes.image_io import give_labels, take_images
from fcn_deploy.passes.inline_and_fold import write_out
from fcn_deploy.passes.names import name_dims, name_layers
from fcn_deploy.passes.opset import raise_opset
from fcn_deploy.passes.to_uint8 import store_unsigned
from fcn_deploy.passes.unused import remove_unused
from fcn_deploy.passes.upsampling import rewrite_upsampling
from fcn_deploy.passes.winograd import multiply_by_winograd

Pass = Callable[[ir.Model], tuple[ir.Model, bool]]

_log = logging.getLogger(__name__)


def exported(root: str = "") -> tuple[Pass, ...]:
    """Returns the passes behind torch.onnx, for a net whose modules stand below the module `root`."""
    # Names first: the tensors that calibration will speak of are those that stand in the exported file.
    return (functools.partial(name_layers, root=root), name_dims)


def image_io(spec: ModelSpec) -> tuple[Pass, ...]:
    """Returns the passes that make an exported model take images and give labels."""
    return (functools.partial(take_images, normalization=spec.normalization), give_labels)


def half(spec: ModelSpec, keep: Collection[str], *, images: bool, quantized: bool) -> tuple[Pass, ...]:
    """Returns the passes that make an exported model, with or without Q/DQ, FP16.

    Args:
        spec: The net.
        keep: Names of the tensors that stay float32.
        images: Whether it takes images and gives labels, instead of float32 `image` and `logits`.
        quantized: Whether it has Q/DQ.
    """
    halved: Pass = functools.partial(to_half, keep=keep)
    typed = (functools.partial(raise_opset, least=QDQ_OPSET), halved) if quantized else (halved,)
    if not images:
        return typed
    take, give = image_io(spec)
    # Labels first: argmax then reads FP16 logits, which no cast has to carry over. Images last: what is in front of the
    # net by then would become FP16, and the normalisation has to stay FP32.
    return (give, *typed, take)


# For a graph that brings its own Q/DQ. First constants become initialisers, which the second looks for.
GIVEN: tuple[Pass, ...] = (write_out, store_weights)


def unsigned(weights: Collection[str]) -> tuple[Pass, ...]:
    """Returns the pass that stores int8 weights of the given names, and all activations, as uint8."""
    return (functools.partial(store_unsigned, weights=weights),)


def cpu(winograd: Collection[str] | None = None) -> tuple[Pass, ...]:
    """Returns the passes for what ONNX Runtime's CPU does faster than what the exported graph says.

    They come behind quantisation, which goes by layers.

    Args:
        winograd: Names of the layers that are multiplied by Winograd's algorithm; by their channels where None.
    """
    return (rewrite_upsampling, functools.partial(multiply_by_winograd, layers=winograd), quantize_channels_last)


# Behind `image_io`.
CPU_IMAGES: tuple[Pass, ...] = (label_early,)

# What a rewrite has replaced must not travel: an INT8 engine that still held its float weights would be the larger one.
FINAL: tuple[Pass, ...] = (remove_unused,)


def run(model: ir.Model, passes: Sequence[Pass]) -> ir.Model:
    """Runs passes in order and returns the model."""
    for rewrite in passes:
        model, changed = rewrite(model)
        name = getattr(rewrite, "func", rewrite).__name__
        _log.debug("%s: %s", name, "changed" if changed else "nothing to do")
    return model
