"""What is measured of an engine against a reference, as plain values: agreement and error, mIoU drop, time.

What the ground truth itself can say is measured too: a figure on pixels that are all ignored says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fcn_deploy.artifacts.json import integer, number, optional_number, require, strings


@dataclass(frozen=True)
class Parity:
    """How far an engine's results are from those of a reference on the same images.

    Attributes:
        images: How many images were compared.
        agreement: Share of pixels with the same label, 0..1; NaN if logits are NaN or infinite: labels then mean
            nothing.
        error: Largest relative error of an image's logits; None if one side gives labels only.
        sqnr: Signal to quantisation noise ratio of the logits in dB, infinite if they are equal; None if one side gives
            labels only.
        agreement_low: Lower end of the 95% interval of the agreement; NaN for fewer than two images.
        agreement_high: Upper end of it.
        only_label: The label that both give at every pixel of every image, so that the agreement could not have been
            lower; None if there are two or more labels.
        reference_not_finite: Number of images on which logits of the reference are NaN or infinite.
        engine_not_finite: The same of the engine.
    """

    images: int
    agreement: float
    error: float | None = None
    sqnr: float | None = None
    agreement_low: float = math.nan
    agreement_high: float = math.nan
    only_label: int | None = None
    reference_not_finite: int = 0
    engine_not_finite: int = 0

    @property
    def measured(self) -> bool:
        """Whether the labels say anything: logits were finite, and there was more than one label."""
        return self.only_label is None and not self.reference_not_finite and not self.engine_not_finite

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Parity:
        """Reads it from JSON, in which null stands for NaN.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        return cls(
            images=integer(data["images"], "parity images"),
            agreement=number(data["agreement"], "parity agreement"),
            error=optional_number(data.get("error"), "parity error"),
            sqnr=optional_number(data.get("sqnr"), "parity sqnr"),
            agreement_low=number(data.get("agreement_low"), "parity agreement_low"),
            agreement_high=number(data.get("agreement_high"), "parity agreement_high"),
            # The first versions had none of these.
            only_label=None if (only := data.get("only_label")) is None else integer(only, "parity only_label"),
            reference_not_finite=integer(data.get("reference_not_finite", 0), "parity reference_not_finite"),
            engine_not_finite=integer(data.get("engine_not_finite", 0), "parity engine_not_finite"),
        )


@dataclass(frozen=True)
class GroundTruth:
    """What the ground truth of a set of images says, and what it does not.

    Attributes:
        pixels: Of all images.
        ignored: Share of them that do not count, 0..1.
        ignored_values: The values that are ignored and occur, in ascending order.
        absent: Names of the net's classes that never occur.
        predicted_absent: Of these, the share of all pixels, 0..1, on which a net gives the class, by name; of several
            nets the largest. Classes that no net gives are left out.
        chance: mIoU in points of labels that are guessed by how frequent each class is.
        not_understood: Values that are neither a class nor ignored. They are an error, so that a result has none.
        ignore_indices: All values that the user, or else the net, says do not count, whether they occur or not.
    """

    pixels: int
    ignored: float
    ignored_values: tuple[int, ...] = ()
    absent: tuple[str, ...] = ()
    predicted_absent: Mapping[str, float] = field(default_factory=dict)
    chance: float = math.nan
    not_understood: tuple[int, ...] = ()
    ignore_indices: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return {
            "pixels": self.pixels,
            "ignored": self.ignored,
            "ignored_values": list(self.ignored_values),
            "absent_classes": list(self.absent),
            "predicted_absent_classes": dict(self.predicted_absent),
            "chance_miou": self.chance,
            "not_understood": list(self.not_understood),
            "ignore_indices": list(self.ignore_indices),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GroundTruth:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        return cls(
            pixels=integer(data["pixels"], "truth pixels"),
            ignored=number(data["ignored"], "truth ignored"),
            ignored_values=_integers(data["ignored_values"], "truth ignored_values"),
            absent=strings(data["absent_classes"], "truth absent_classes"),
            predicted_absent={
                str(name): number(share, "truth predicted_absent_classes")
                for name, share in data["predicted_absent_classes"].items()
            },
            chance=number(data["chance_miou"], "truth chance_miou"),
            not_understood=_integers(data["not_understood"], "truth not_understood"),
            # The first versions did not have it.
            ignore_indices=_integers(data.get("ignore_indices", []), "truth ignore_indices"),
        )


def _integers(values: object, what: str) -> tuple[int, ...]:
    require(isinstance(values, list), what, values, "a list of integers")
    return tuple(integer(value, what) for value in values)  # type: ignore[attr-defined]  # checked above


@dataclass(frozen=True)
class Drop:
    """How much mIoU an engine loses against a reference.

    Attributes:
        points: mIoU of the reference minus that of the engine, over all images.
        low: Lower end of the 95% interval; NaN for fewer than two images.
        high: Upper end of it.
    """

    points: float
    low: float
    high: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Drop:
        """Reads it from JSON, in which null stands for NaN.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        return cls(*(number(data[key], f"miou_drop {key}") for key in ("points", "low", "high")))


@dataclass(frozen=True)
class Ratio:
    """Time of one engine over that of another, round by round.

    Attributes:
        median: Of the rounds' ratios.
        low: Their first quartile; NaN if there were too few rounds for quartiles.
        high: Their third quartile.
    """

    median: float
    low: float
    high: float

    @property
    def in_words(self) -> str:
        """Which is faster, and how often it runs in the time of the other: `3.0x faster`, `1.2x slower`."""
        if not 0 < self.median < math.inf:
            return "not measured"
        factor = max(self.median, 1 / self.median)
        if factor < 1.005:
            return "as fast"
        text = f"{factor:.1f}" if factor >= 1.095 else f"{factor:.2f}"
        return f"{text}x {'slower' if self.median > 1 else 'faster'}"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ratio:
        """Reads it from JSON.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        return cls(*(number(data[key], f"ratio {key}") for key in ("median", "low", "high")))
