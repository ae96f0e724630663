"""Rounding of weights: to the nearest integer, or so that the errors of neighbouring taps cancel.

A feature map is smooth: neighbouring pixels hold similar values. The rounding errors e of the taps of one kernel add an
error to an output whose expected square is e' R e, with R[i, j] the correlation of the pixels that taps i and j read.
The nearest integers are best if R is the identity, that is for noise. `correlated` assumes that R[i, j] falls with the
distance of the two pixels, and searches the integers on both sides of each weight for the least expected square.

This is the objective of AdaRound (Nagel et al. 2020, https://arxiv.org/abs/2004.10568), with a model of the input
instead of its measured second moments. It is solved by descent, as in SQuant (Guo et al. 2022,
https://arxiv.org/abs/2202.07471), whose R is all ones. Neither images nor training are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import UsageError

Rounding = Literal["nearest", "correlated"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)

# Of neighbouring pixels. On the net of docs/results.md, 0.7 to 0.9 give the same result, better than SQuant's 1 and 0.
_CORRELATION = 0.8
# Flipping a weight must lower the error by more than float64's own rounding.
_LEAST = 1e-9
# Kernels in one block: few enough that all arrays of a block stay in the processor's cache.
_BLOCK = 4096


def check_rounding(rounding: str) -> None:
    """Checks the name of a rounding.

    Raises:
        UsageError: It is unknown.
    """
    if rounding not in ROUNDINGS:
        raise UsageError("unknown rounding of weights", got=repr(rounding), expected=" or ".join(ROUNDINGS))


def round_weights(
    steps: NDArray[np.floating], rounding: Rounding, dilations: Sequence[int] = ()
) -> NDArray[np.float64]:
    """Rounds the weights of a convolution.

    Args:
        steps: Weights in units of their scale, [O, C / groups, *kernel].
        rounding: `nearest` or `correlated` (see above); for a kernel of one tap the two are the same.
        dilations: Distance in pixels between taps, along each axis of the kernel; empty for 1.

    Returns:
        Integers, as float64, of the same shape; each is one of the two around its weight.
    """
    return _ROUNDINGS[rounding](np.asarray(steps, np.float64), dilations)


def _nearest(steps: NDArray[np.float64], _: Sequence[int]) -> NDArray[np.float64]:
    return np.rint(steps)


def _correlated(steps: NDArray[np.float64], dilations: Sequence[int]) -> NDArray[np.float64]:
    kernel = steps.shape[2:]
    correlation = tap_correlation(kernel, dilations or (1,) * len(kernel))
    if len(correlation) < 2:
        return np.rint(steps)
    rows = steps.reshape(-1, len(correlation))
    rounded = np.empty_like(rows)
    for begin in range(0, len(rows), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        rounded[block] = _descend(rows[block], correlation)
    return rounded.reshape(steps.shape)


def tap_correlation(kernel: Sequence[int], dilations: Sequence[int]) -> NDArray[np.float64]:
    """Returns the correlation that is assumed of the pixels under the taps of a kernel.

    Args:
        kernel: The size of the kernel along each axis.
        dilations: Distance in pixels between taps, along each axis.

    Returns:
        float64 [taps, taps], 0.8 to the power of the Euclidean distance in pixels: positive definite.
    """
    taps = np.stack([axis.ravel() * step for axis, step in zip(np.indices(kernel), dilations, strict=True)], axis=1)
    distance = np.linalg.norm(taps[:, np.newaxis] - taps, axis=2)
    correlation: NDArray[np.float64] = _CORRELATION**distance
    return correlation


def _descend(steps: NDArray[np.float64], correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounds kernels, [kernels, taps], in turns: a turn flips the one weight of a kernel that lowers its error most."""
    rounded = np.rint(steps)
    # The way to the other integer around each weight; 0 if the weight is an integer.
    flip = np.sign(steps - rounded)
    gradient = (rounded - steps) @ correlation
    active = np.arange(len(steps))
    while active.size:
        # (e + f)' R (e + f) - e' R e, for f in one tap: 2 f (R e) + f R f.
        change = flip[active] * (2 * gradient[active] + flip[active] * np.diag(correlation))
        tap = change.argmin(axis=1)
        helps = change[np.arange(active.size), tap] < -_LEAST
        active, tap = active[helps], tap[helps]
        step = flip[active, tap]
        rounded[active, tap] += step
        flip[active, tap] = -step
        gradient[active] += step[:, np.newaxis] * correlation[tap]
    return rounded


_ROUNDINGS: dict[str, Callable[[NDArray[np.float64], Sequence[int]], NDArray[np.float64]]] = {
    "nearest": _nearest,
    "correlated": _correlated,
}
