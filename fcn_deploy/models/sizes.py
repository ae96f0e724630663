"""Finds the sizes of images that a net takes: every size from some smallest one on, or multiples of a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.errors import InputError
from fcn_deploy.models.adapter import AdaptedNet

Shape = tuple[int, int, int]  # batch, height, width

# Odd and even sizes, of every remainder by 4, none a multiple of another. Nets that take every size from some smallest
# one on take those of the first line that is above it. An error names the first shape that fails, so the most ordinary
# one comes first.
_ORDINARY: tuple[tuple[Shape, ...], ...] = (
    ((1, 65, 97), (2, 33, 64), (1, 51, 79), (1, 96, 130)),
    ((1, 131, 195), (2, 67, 128), (1, 103, 161), (1, 194, 262)),
    ((1, 263, 389), (2, 135, 256), (1, 207, 321), (1, 390, 522)),
)
_TINY: tuple[Shape, ...] = ((2, 2, 3), (1, 1, 1))
_POWERS = (2, 4, 8, 16, 32, 64, 128, 256)
_SCANNED = range(32, 97)
_LARGEST = 256  # smallest sizes above this are not looked for
_CHECKED_ABOVE = 8  # sizes above the smallest one that are tried as well


def noise(batch: int, height: int, width: int) -> Tensor:
    """Returns normally distributed images, float32 [N, 3, H, W], the same each time."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def run(module: nn.Module, shape: Shape) -> Tensor:
    """Returns what a net gives for noise of a shape."""
    with torch.inference_mode():
        logits: Tensor = module(noise(*shape))
    return logits


def first_misfit(module: nn.Module, shapes: Sequence[Shape]) -> str | None:
    """Says what is wrong at the first shape at which a net does not give one score per class and pixel.

    Args:
        module: Takes images, float [N, 3, H, W].
        shapes: To try, in this order.

    Returns:
        One sentence; None if the net gives [N, C, H, W] with the same C at all of them.

    Raises:
        InputError: It gives labels, or what it returns holds no logits.
    """
    classes = None
    for batch, height, width in shapes:
        at = f"for {batch} image{'s' if batch > 1 else ''} of {height}x{width}"
        try:
            logits = run(module, (batch, height, width))
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


def _are_labels(logits: Tensor, batch: int) -> bool:
    """Returns whether a net gives whole numbers per pixel: an argmax, or a threshold, has already been taken."""
    return not logits.is_floating_point() and not logits.is_complex() and logits.ndim >= 2 and len(logits) == batch


def misfit_at_every_size(module: nn.Module) -> str | None:
    """Says what is wrong with a net at ordinary sizes, or else at the smallest; None if it takes every size."""
    return first_misfit(module, (*_ORDINARY[0], *_TINY))


def smallest_side(module: nn.Module) -> int | None:
    """Returns the smallest height and width from which on a net takes every size.

    Args:
        module: As for `first_misfit`.

    Returns:
        At least 1; None if there is no such size up to 256.

    Raises:
        InputError: As for `first_misfit`.
    """
    if misfit_at_every_size(module) is None:
        return 1
    shapes = next((shapes for shapes in _ORDINARY if first_misfit(module, shapes) is None), None)
    if shapes is None:
        return None
    long = max(shapes[0])
    works = min(height for _, height, _ in shapes)
    fails = 0 if _takes_side(module, 1, long) else 1
    if not fails:
        return 1 if all(_takes_side(module, side, long) for side in range(2, 2 + _CHECKED_ABOVE)) else works
    while works - fails > 1:
        middle = (works + fails) // 2
        if _takes_side(module, middle, long):
            works = middle
        else:
            fails = middle
    # Sizes that fail need not be the smallest ones only: what follows the smallest that works must work too.
    side = checked = works
    while checked < min(side, _LARGEST) + _CHECKED_ABOVE:
        checked += 1
        if not _takes_side(module, checked, long):
            side = checked + 1
    return side if side <= _LARGEST else None


def _takes_side(module: nn.Module, side: int, long: int) -> bool:
    return first_misfit(module, [(1, side, side), (2, side, long), (1, long, side)]) is None


def smallest_divisor(net: AdaptedNet) -> int | None:
    """Returns the smallest number whose multiples a net takes, as height and width.

    Args:
        net: Without padding.

    Returns:
        A power of two if one up to 256 works, else what the sizes from 32 to 96 that work have in common; 2 or more.
        None if no multiples work.

    Raises:
        InputError: As for `first_misfit`.
    """
    for divisor in _POWERS:
        if _takes_multiples(net, divisor):
            return divisor
    common = math.gcd(*(side for side in _SCANNED if first_misfit(net, [(1, side, side)]) is None))
    return common if common > 1 and _takes_multiples(net, common) else None


def _takes_multiples(net: AdaptedNet, divisor: int) -> bool:
    # From 64 pixels on, because a net may need a smallest size as well.
    first = -(-64 // divisor)
    sides = [(first + step) * divisor for step in range(5)]
    shapes = [(1, sides[0], sides[0]), (1, sides[1], sides[4]), (2, sides[2], sides[0]), (1, sides[0], sides[3])]
    return first_misfit(net, shapes) is None and first_misfit(padded(net, divisor), _ORDINARY[1]) is None


def padded(net: AdaptedNet, divisor: int) -> AdaptedNet:
    """Returns a net with images padded to multiples of a number."""
    padding = Padding(divisor) if net.padding is None else replace(net.padding, divisor=divisor)
    return AdaptedNet(net.net, padding, net.outputs).eval()
