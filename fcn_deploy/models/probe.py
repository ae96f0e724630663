"""Runs a net to find out whether it is fully convolutional, and if not, what would help."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fcn_deploy.artifacts.geometry import Padding, PadMode
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import AdaptedNet
from fcn_deploy.models.sizes import (
    Shape,
    first_misfit,
    misfit_at_every_size,
    noise,
    run,
    smallest_divisor,
    smallest_side,
)

_log = logging.getLogger(__name__)

# The usual sizes of nets that take one size only, the most frequent first.
_FIXED = (224, 256, 512, 320, 384, 448, 299, 128, 64, 32)
_TOLERANCE = 1e-3  # of the logits' range: kernels sum in another order for another batch size
# Where padding is compared with no padding: sizes that are multiples of nothing that nets are padded to.
_UNPADDED = (131, 195)


@dataclass(frozen=True)
class Probed:
    """What running a net has shown.

    Attributes:
        channels: C of its logits.
        min_size: The smallest height and width of images that it takes.
    """

    channels: int
    min_size: tuple[int, int] = (1, 1)


def probe(module: AdaptedNet, shape: ImageShape | None = None) -> Probed:
    """Checks that a net returns one score per class and pixel, whatever else is in the batch.

    Args:
        module: The net, in evaluation mode.
        shape: The one shape it has to work at; None for every size from some smallest one on.

    Raises:
        InputError: It does not. The message says what the net does instead, and what would help: `size_divisor`,
            `resize_logits` or `logits`, which are tried first.
    """
    _check_call(module.net)
    if shape is not None:
        only = (shape.batch, shape.height, shape.width)
        misfit = first_misfit(module, [only])
        if misfit is not None:
            _check_input_channels(module, only)
            raise _misfit_at_one_size(module, misfit, only)
        _check_batch(module, only)
        return Probed(_channels(module, only))
    side = smallest_side(module)
    if side is None:
        _check_input_channels(module, (1, 256, 256))
        raise _refusal(module)
    images = (2, max(side, 33), max(side, 64))
    _check_batch(module, images)
    if module.padding is not None:
        _compare_with_bare(module)
    if side > 1:
        _log.info("the smallest image that the net takes is %dx%d", side, side)
    return Probed(_channels(module, images), (side, side))


def find_padding(net: AdaptedNet, mode: PadMode) -> Padding | None:
    """Returns the padding that a net needs; None if it takes every size from some smallest one on.

    Args:
        net: Without padding, in evaluation mode.
        mode: How images are padded, if they are.

    Raises:
        InputError: As for `probe`.
    """
    _check_call(net.net)
    side = smallest_side(net)
    if side is not None:
        _log.info("the net takes every size from %dx%d on: images are not padded", side, side)
        return None
    divisor = smallest_divisor(net)
    if divisor is None:
        _check_input_channels(net, (1, 256, 256))
        raise _refusal(net)
    _log.info("the net works at multiples of %d: images are padded to them", divisor)
    return Padding(divisor, mode)


def _channels(module: AdaptedNet, shape: Shape) -> int:
    return int(run(module, shape).shape[1])


def _compare_with_bare(module: AdaptedNet) -> None:
    """Warns if a net is padded that does not need it, and says what this does to its labels."""
    bare = AdaptedNet(module.net, None, module.outputs).eval()
    side = smallest_side(bare)
    if side is None:
        return
    shape = (1, *_UNPADDED)
    agreement = _agreement(run(bare, shape), run(module, shape))
    _log.warning(
        "the net takes every size from %dx%d on without padding; with it, its labels are the same on %.2f%% of the "
        "pixels of noise of %dx%d: leave out `size_divisor`",
        side,
        side,
        100 * agreement,
        *_UNPADDED,
    )


def _agreement(reference: Tensor, logits: Tensor) -> float:
    """The share of pixels with the same label; a binary net's threshold, not known yet, is taken to be its mean."""
    if reference.shape[1] == 1:
        border = reference.mean()
        return float(((reference > border) == (logits > border)).float().mean())
    return float((reference.argmax(1) == logits.argmax(1)).float().mean())


def _check_call(net: nn.Module) -> None:
    """Checks that the net can be called with an image alone."""
    try:
        signature = inspect.signature(net.forward)
    except (TypeError, ValueError):
        return  # only a call can tell
    required = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    by_position = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    missing = required[1:] if by_position else required
    if missing or not by_position:
        first = by_position[0].name if by_position else None
        raise InputError(
            "the net cannot be called with an image alone",
            got=f"forward({', '.join(signature.parameters)})"
            + (f", which needs {' and '.join(f'{name!r}' for name in missing)} too" if missing else ""),
            expected=f"forward({first or 'image'})",
            fix="wrap it in a module that calls it with the value the trained net is used with"
            if missing
            else "wrap it in a module whose forward takes an image",
        )


def _check_input_channels(module: AdaptedNet, shape: Shape) -> None:
    """Finds out whether a net that fails fails because it takes another number of channels."""
    image = noise(*shape)
    if _takes(module, image):
        return
    for channels in (1, 4, 2, 6):
        if _takes(module, image[:, :1].repeat(1, channels, 1, 1)):
            raise InputError(
                f"the net takes images of {channels} channel{'s' if channels > 1 else ''}",
                got=f"a net for [N, {channels}, H, W]",
                expected="[N, 3, H, W], the channels of a colour image",
                fix="wrap it in a module that makes its channel of the three, such as x.mean(1, keepdim=True)"
                if channels == 1
                else "wrap it in a module that makes its channels of the three",
            )


def _takes(module: nn.Module, image: Tensor) -> bool:
    try:
        with torch.inference_mode():
            module(image)
    except InputError:
        return True  # it ran; what it returns is judged elsewhere
    except (Exception, SystemExit):  # the user's code may raise anything
        return False
    return True


def _misfit_at_one_size(module: AdaptedNet, misfit: str, shape: Shape) -> InputError:
    resized = _resized(module)
    return InputError(
        "the net does not return one score per class and pixel",
        got=misfit,
        expected="float [N, C, H, W] for images [N, 3, H, W]",
        fix='add `resize_logits="bilinear"`, which resizes the logits to the image in the graph'
        if resized is not None and first_misfit(resized, [shape]) is None
        else None,
    )


def _refusal(module: AdaptedNet) -> InputError:
    misfit = misfit_at_every_size(module)
    expected = "float [N, C, H, W] for images [N, 3, H, W], at every size"
    is_padded = module.padding is not None
    what = f"the net does not work at {'multiples of that' if is_padded else 'every size'}"
    bare = AdaptedNet(module.net, None, module.outputs).eval()
    divisor = smallest_divisor(bare)
    if divisor is not None:
        fix = f"add `size_divisor={divisor}`, the smallest that works: it pads images in the graph and crops the logits"
        return InputError(what, got=misfit, expected=expected, fix=fix)
    resized = _resized(bare)
    if resized is not None and smallest_side(resized) is not None:
        fix = 'add `resize_logits="bilinear"`, which resizes the logits to the image in the graph'
        return InputError("the net returns logits smaller than the image", got=misfit, expected=expected, fix=fix)
    divisor = None if resized is None else smallest_divisor(resized)
    if divisor is not None:
        fix = f'add `resize_logits="bilinear"` and `size_divisor={divisor}`: images are padded, and the logits resized'
        return InputError(what, got=misfit, expected=expected, fix=fix)
    return InputError("the net is not fully convolutional", got=misfit, expected=expected, fix=_advice(bare))


def _resized(module: AdaptedNet) -> AdaptedNet | None:
    """The net with its logits resized; None if they are already, or are one for an image."""
    shape = _shape_at(module, 256)
    if module.outputs.resize is not None or len(shape) != 4 or min(shape[2:]) < 2:
        return None
    return AdaptedNet(module.net, module.padding, replace(module.outputs, resize="bilinear")).eval()


def _advice(module: AdaptedNet) -> str:
    """Says what the user can do about a net that no padding helps."""
    for side in _FIXED:
        if first_misfit(module, [(1, side, side)]) is None:
            return (
                f"it works at {side}x{side}, so some part of it has a fixed size, such as a Linear layer or a view; "
                "replace that by a convolution or a pooling, or export for that size only with "
                f'`shape="1x{side}x{side}"`'
            )
    shape = _shape_at(module, 256)
    if len(shape) in (2, 3):
        return "it returns one answer per image, as a classifier does: it has to return one per pixel"
    if len(shape) == 4 and 0 < shape[2] < 256 and 256 % shape[2] == 0:
        return f"its logits are {256 // shape[2]} times smaller than the image: it has to resize them to that size"
    return "replace each layer that needs a fixed size, and return logits of the size of the image"


def _shape_at(module: AdaptedNet, side: int) -> list[int]:
    """The shape of the logits of a square image; empty if the net returns none."""
    try:
        return list(run(module, (1, side, side)).shape)
    except (Exception, SystemExit):  # the user's code may raise anything; the misfit says so already
        return []


def _check_batch(module: nn.Module, shape: Shape) -> None:
    """Checks that the other images of a batch do not change an image's logits."""
    batch, height, width = shape
    images = noise(*shape)
    with torch.inference_mode():
        together = module(images)
        # The batch keeps its size: a net may take only this one.
        alone = torch.cat([module(image.expand_as(images))[:1] for image in images])
    if not torch.isfinite(together).all():
        raise InputError(
            "the net returns logits that are not finite",
            got=f"for {batch} images of {height}x{width}",
            expected="a net whose training did not diverge",
        )
    spread = max(float(together.max() - together.min()), 1e-6)
    error = float((together - alone).abs().max()) / spread
    if not error <= _TOLERANCE:
        raise InputError(
            "the net mixes the images of a batch, or returns another result each time",
            got=f"logits that differ by {error:.1e} of their range from those of the same image alone",
            expected="logits of an image that depend on this image only",
            fix="look for a view or a mean over the batch, or for randomness that evaluation mode does not turn off",
        )
