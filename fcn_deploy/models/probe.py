"""Runs a net to find out whether it is fully convolutional, and if not, what would help."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import AdaptedNet

# Batch, height and width: odd and even sizes, none a multiple of another, and the smallest image. An error names the
# first shape that fails, so the most ordinary shape comes first.
_ANY = ((1, 65, 97), (2, 33, 64), (1, 96, 130), (2, 2, 3), (1, 1, 1))
_DIVISORS = (2, 4, 8, 16, 32, 64, 128, 256)
# The usual sizes of nets that take one size only, the most frequent first.
_FIXED = (224, 256, 512, 320, 384, 448, 299, 128, 64, 32)
_TOLERANCE = 1e-3  # of the logits' range: kernels sum in another order for another batch size


def probe(module: AdaptedNet, shape: ImageShape | None = None) -> int:
    """Checks that a net returns one score per class and pixel at every size, whatever else is in the batch.

    Args:
        module: The net, in evaluation mode.
        shape: The one shape it has to work at; None for several sizes and batches.

    Returns:
        The number of classes.

    Raises:
        InputError: It does not. The message says what the net does instead, and which `size_divisor` would help; that
            is found by trying powers of two up to 256.
    """
    _check_call(module.net)
    shapes = [(shape.batch, shape.height, shape.width)] if shape else _ANY
    misfit = _first_misfit(module, shapes)
    if misfit is not None:
        _check_input_channels(module, shape)
        raise _refusal(module, misfit, fixed=shape is not None)
    batch, height, width = max(shapes)
    _check_batch(module, batch, height, width)
    return int(_run(module, batch, height, width).shape[1])


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


def _check_input_channels(module: AdaptedNet, shape: ImageShape | None) -> None:
    """Finds out whether a net that fails fails because it takes another number of channels."""
    batch, height, width = (shape.batch, shape.height, shape.width) if shape else (1, 256, 256)
    image = _image(batch, height, width)
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


def _are_labels(logits: Tensor, batch: int) -> bool:
    """Returns whether a net gives whole numbers per pixel: an argmax, or a threshold, has already been taken."""
    return not logits.is_floating_point() and not logits.is_complex() and logits.ndim >= 2 and len(logits) == batch


def _image(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def _run(module: nn.Module, batch: int, height: int, width: int) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = module(_image(batch, height, width))
    return logits


def _first_misfit(module: nn.Module, shapes: Sequence[tuple[int, int, int]]) -> str | None:
    """Says what is wrong at the first shape at which the net fails; None if it works at all of them."""
    classes = None
    for batch, height, width in shapes:
        at = f"for {batch} image{'s' if batch > 1 else ''} of {height}x{width}"
        try:
            logits = _run(module, batch, height, width)
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            return f"{at} it raises {type(error).__name__}: {str(error).strip().split(chr(10))[0]}"
        shape = list(logits.shape)
        if _are_labels(logits, batch):
            raise InputError(
                "the net returns labels, not logits",
                got=f"{at} {str(logits.dtype).removeprefix('torch.')} {shape}",
                expected="float [N, C, H, W], a score for each class and pixel",
                fix="return the logits, before the argmax or the threshold; the argmax is added where it is needed",
            )
        if not logits.is_floating_point() or len(shape) != 4 or shape[0] != batch or shape[2:] != [height, width]:
            return f"{at} it returns {str(logits.dtype).removeprefix('torch.')} {shape}"
        if shape[1] != (classes or shape[1]):
            return f"{at} it returns {shape[1]} classes, at other sizes {classes}"
        classes = shape[1]
    return None


def _refusal(module: AdaptedNet, misfit: str, fixed: bool) -> InputError:
    expected = "float [N, C, H, W] for images [N, 3, H, W], at every size"
    if fixed:
        return InputError("the net does not return one score per class and pixel", got=misfit, expected=expected)
    for divisor in _DIVISORS:
        if _works_at_multiples(module.net, divisor):
            padded = module.padding is not None
            return InputError(
                f"the net does not work at {'multiples of that' if padded else 'every size'}",
                got=misfit,
                expected=expected,
                fix=f"add `size_divisor={divisor}`, the smallest that works: it pads images in the graph and crops the "
                "logits",
            )
    return InputError("the net is not fully convolutional", got=misfit, expected=expected, fix=_advice(module.net))


def _works_at_multiples(net: nn.Module, divisor: int) -> bool:
    shapes = [(1, divisor, divisor), (1, 2 * divisor, 5 * divisor), (2, 3 * divisor, divisor)]
    return _first_misfit(AdaptedNet(net), shapes) is None


def _advice(net: nn.Module) -> str:
    """Says what the user can do about a net that no padding helps."""
    module = AdaptedNet(net)
    for side in _FIXED:
        if _first_misfit(module, [(1, side, side)]) is None:
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
        return list(_run(module, 1, side, side).shape)
    except (Exception, SystemExit):  # the user's code may raise anything; the misfit says so already
        return []


def _check_batch(module: nn.Module, batch: int, height: int, width: int) -> None:
    """Checks that the other images of a batch do not change an image's logits."""
    if batch == 1:
        return
    images = _image(batch, height, width)
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
