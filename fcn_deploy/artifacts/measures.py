"""What is measured of an engine against a reference, as plain values: agreement and error, mIoU drop, time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fcn_deploy.artifacts.json import integer, number, optional_number


@dataclass(frozen=True)
class Parity:
    """How far an engine's results are from those of a reference on the same images.

    Attributes:
        images: How many images were compared.
        agreement: Share of pixels with the same label, 0..1.
        error: Largest relative error of an image's logits; None if one side gives labels only.
        sqnr: Signal to quantisation noise ratio of the logits in dB, infinite if they are equal; None if one side gives
            labels only.
        agreement_low: Lower end of the 95% interval of the agreement; NaN for fewer than two images.
        agreement_high: Upper end of it.
    """

    images: int
    agreement: float
    error: float | None = None
    sqnr: float | None = None
    agreement_low: float = math.nan
    agreement_high: float = math.nan

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
        )


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
        low: Their first quartile.
        high: Their third quartile.
    """

    median: float
    low: float
    high: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ratio:
        """Reads it from JSON.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        return cls(*(number(data[key], f"ratio {key}") for key in ("median", "low", "high")))
