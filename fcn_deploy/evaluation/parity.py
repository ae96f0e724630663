"""Parity: how far an engine's results are from those of a reference on the same images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.measures import Parity
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.bootstrap import draws, interval
from fcn_deploy.runtime.backend import Backend
from fcn_deploy.runtime.labels import labels_of
from fcn_deploy.runtime.segmenter import Segmenter

_SMALLEST_RANGE = 1e-6


def relative_error(reference: NDArray[np.floating[Any]], candidate: NDArray[np.floating[Any]]) -> float:
    """Returns `max |a - b| / max(ptp(reference), 1e-6)`: the largest difference as a share of the reference's range.

    Args:
        reference: float, any shape, not empty.
        candidate: float, of the same shape.

    Returns:
        0 or more; infinite if a value is not finite.

    Raises:
        InputError: The shapes differ.
    """
    if reference.shape != candidate.shape:
        raise InputError("results differ in shape", got=list(candidate.shape), expected=list(reference.shape))
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which the last line turns into inf
        difference = reference.astype(np.float64)  # large: what follows makes no copies
        difference -= candidate
        error = float(np.abs(difference, out=difference).max()) / max(float(np.ptp(reference)), _SMALLEST_RANGE)
    return error if math.isfinite(error) else math.inf


def compare_backends(reference: Backend, candidate: Backend, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> float:
    """Returns the error of the first output over several inputs; see `ErrorTally`.

    Args:
        reference: What the candidate is compared with.
        candidate: A backend with an output of the same name.
        feeds: Inputs by name, at least one set.

    Raises:
        InputError: The results differ in shape, or an input does not fit.
    """
    name = reference.outputs[0].name
    errors = ErrorTally()
    for feed in feeds:
        errors.add(reference.infer(feed)[name], candidate.infer(feed)[name])
    return errors.result()


class ErrorTally:
    """The error of logits over several images: the largest `relative_error`.

    For a binary net, whose one channel may be the same in all of an image, differences count as a share of the range
    over all images.
    """

    def __init__(self) -> None:
        self._error = self._difference = 0.0
        self._low, self._high = math.inf, -math.inf

    def add(self, reference: NDArray[np.floating[Any]], candidate: NDArray[np.floating[Any]]) -> None:
        """Adds the logits of an image or a batch, float [..., C, H, W].

        Raises:
            InputError: The shapes differ.
        """
        error = relative_error(reference, candidate)
        if reference.ndim < 3 or reference.shape[-3] != 1 or not math.isfinite(error):
            self._error = max(self._error, error)
            return
        self._difference = max(self._difference, error * max(float(np.ptp(reference)), _SMALLEST_RANGE))
        self._low, self._high = min(self._low, float(reference.min())), max(self._high, float(reference.max()))

    def result(self) -> float:
        """Returns the error, 0 or more; infinite if a value was not finite."""
        span = self._high - self._low if self._high >= self._low else 0.0
        return max(self._error, self._difference / max(span, _SMALLEST_RANGE))


@dataclass(frozen=True, eq=False)
class Output:
    """What an engine gives for one image.

    Attributes:
        labels: Integer [H, W].
        logits: float32 [C, H, W]; None from an engine that gives labels only.
    """

    labels: NDArray[np.integer[Any]]
    logits: NDArray[np.float32] | None = None


def run(segmenter: Segmenter, image: NDArray[np.uint8]) -> Output:
    """Runs an engine on one image, whether it gives labels or logits, and whether or not its batch is fixed.

    Args:
        segmenter: Any engine. If its batch is fixed, the image fills every place of the batch.
        image: uint8 [H, W, 3], RGB.

    Raises:
        InputError: The image does not fit the engine.
    """
    return run_together(segmenter, image[np.newaxis])[0]


def run_together(segmenter: Segmenter, images: NDArray[np.uint8]) -> list[Output]:
    """Runs an engine on a batch of images, whether it gives labels or logits, and whether or not its batch is fixed.

    Args:
        segmenter: Any engine. If its batch is fixed, the images run in portions of that size, and the last image fills
            the places that are left over.
        images: uint8 [N, H, W, 3], RGB, at least one.

    Returns:
        One output for each image, in their order.

    Raises:
        InputError: The images do not fit the engine.
    """
    size = segmenter.fixed_batch or len(images)
    outputs: list[Output] = []
    for start in range(0, len(images), size):
        portion = images[start : start + size]
        full = np.concatenate([portion, np.repeat(portion[-1:], size - len(portion), axis=0)])
        if segmenter.io == "image":
            outputs += [Output(labels) for labels in segmenter(full)[: len(portion)]]
        else:
            found = segmenter.logits(full)[: len(portion)]
            outputs += [Output(labels_of(logits, segmenter.spec), logits) for logits in found]
    return outputs


class ParityTally:
    """Accumulates the comparison of two engines, image by image."""

    def __init__(self) -> None:
        self._pixels: list[int] = []
        self._same: list[int] = []
        self._errors: ErrorTally | None = ErrorTally()
        self._signal = self._noise = 0.0
        self._lowest, self._highest = math.inf, -math.inf
        self._not_finite = [0, 0]  # images on which logits of the reference, and of the engine, are not finite

    def add(self, expected: Output, found: Output) -> None:
        """Adds one image.

        Args:
            expected: Of the reference.
            found: Of the engine that is compared with it.

        Raises:
            InputError: The two differ in size.
        """
        if expected.labels.shape != found.labels.shape:
            raise InputError(
                "results differ in size", got=list(found.labels.shape), expected=list(expected.labels.shape)
            )
        self._pixels.append(expected.labels.size)
        self._same.append(int((expected.labels == found.labels).sum()))
        for index, output in enumerate((expected, found)):
            self._lowest = min(self._lowest, int(output.labels.min()))
            self._highest = max(self._highest, int(output.labels.max()))
            if output.logits is not None and not np.isfinite(output.logits).all():
                self._not_finite[index] += 1
        if expected.logits is None or found.logits is None or self._errors is None:
            self._errors = None
            return
        self._errors.add(expected.logits, found.logits)
        with np.errstate(invalid="ignore"):
            self._signal += float(np.square(expected.logits, dtype=np.float64).sum())
            self._noise += float(np.square(expected.logits.astype(np.float64) - found.logits).sum())

    def result(self) -> Parity:
        """Returns what the comparison found.

        Raises:
            InputError: No image has been added.
        """
        if not self._pixels:
            raise InputError("no images to compare on", expected="at least one")
        sqnr = None if self._errors is None else _decibels(self._signal, self._noise)
        reference, engine = self._not_finite
        # The largest of logits that are NaN is no label, so that labels that agree say nothing.
        finite = not reference and not engine
        low, high = agreement_interval(self._same, self._pixels) if finite else (math.nan, math.nan)
        return Parity(
            images=len(self._pixels),
            agreement=sum(self._same) / sum(self._pixels) if finite else math.nan,
            error=None if self._errors is None else self._errors.result(),
            sqnr=sqnr,
            agreement_low=low,
            agreement_high=high,
            only_label=int(self._lowest) if finite and self._lowest == self._highest else None,
            reference_not_finite=reference,
            engine_not_finite=engine,
        )


def agreement_interval(same: Sequence[int], pixels: Sequence[int]) -> tuple[float, float]:
    """Returns the ends of the 95% interval of the agreement, by percentile bootstrap over the images.

    Args:
        same: Number of pixels with the same label, by image.
        pixels: Number of all pixels, by image; one or more.

    Returns:
        Lower and upper end, 0..1; NaN for fewer than two images.
    """
    if len(pixels) < 2:
        return math.nan, math.nan
    drawn = draws(len(pixels))
    return interval((drawn @ np.asarray(same)) / (drawn @ np.asarray(pixels)))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    share = signal / noise
    return 10 * math.log10(share) if math.isfinite(share) and share > 0 else -math.inf
