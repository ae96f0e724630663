"""What INT8 costs in each layer of a net, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy.artifacts.json import (
    FORMAT,
    check_format,
    integer,
    number,
    optional_number,
    require,
    strings,
)
from fcn_deploy.errors import InputError


@dataclass(frozen=True)
class Fidelity:
    """How far logits are from those of the net without INT8.

    Attributes:
        agreement: Share of pixels with the same label, 0..1.
        sqnr: Signal to quantisation noise ratio of the logits in dB; infinite if they are equal.
    """

    agreement: float
    sqnr: float


@dataclass(frozen=True)
class LayerSensitivity:
    """What INT8 costs and saves in one layer.

    Attributes:
        name: Of the layer.
        int8: Whether the mix runs it in INT8.
        macs: How often it multiplies and adds for the first image.
        alone: The net with INT8 in this layer alone.
        others: The mix with this layer in float; the mix itself if the layer is float there.
        float_ms: Milliseconds of the layer in float, for the first image; None if they are not known.
        int8_ms: The same in INT8.
    """

    name: str
    int8: bool
    macs: int
    alone: Fidelity
    others: Fidelity
    float_ms: float | None = None
    int8_ms: float | None = None

    @property
    def saving(self) -> float:
        """What INT8 saves in this layer: milliseconds if they were measured, else GMACs."""
        if self.float_ms is None or self.int8_ms is None:
            return self.macs / 1e9
        return self.float_ms - self.int8_ms


@dataclass(frozen=True)
class Sensitivity:
    """What INT8 costs in each layer of a net.

    Attributes:
        target: What the graphs were made for: `onnxruntime`, `openvino` or `tensorrt`.
        method: How ranges were chosen.
        images: How many images it was measured on.
        shape: [height, width] of the first image, for which `macs` and times are.
        mix: The net with all its INT8 layers: the mix of precisions that is examined.
        layers: Every layer that can be quantised, in graph order.
    """

    target: str
    method: str
    images: int
    shape: tuple[int, int]
    mix: Fidelity
    layers: tuple[LayerSensitivity, ...]

    def __repr__(self) -> str:
        measured = f"{len(self.layers)} layers, {self.images} images, agreement {self.mix.agreement:.3%}"
        return f"Sensitivity(INT8 by {self.method} for {self.target}, {measured})"

    def damage(self, layer: LayerSensitivity) -> float:
        """Returns the share of pixels, 0..1, whose label INT8 in a layer changes; negative if it helps.

        The mean of the agreement that the layer costs as the only INT8 layer and as the last one of the mix: the first
        and the last of the positions that its Shapley value (https://arxiv.org/abs/1705.07874) averages over. One of
        them is not enough: the rounding errors of several layers add up and cancel, so the costs of single layers do
        not sum to what the layers cost together.
        """
        first = 1 - layer.alone.agreement
        last = layer.others.agreement - self.mix.agreement
        return (first + last) / 2

    def by_damage(self) -> list[LayerSensitivity]:
        """Returns the INT8 layers of the mix, the most damaging first."""
        return sorted((layer for layer in self.layers if layer.int8), key=self.damage, reverse=True)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data; an infinite SQNR, of equal logits, is null."""

        def written(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: written(each) for key, each in value.items()}
            if isinstance(value, list | tuple):
                return [written(each) for each in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {"format": FORMAT, **written(asdict(self))}

    @classmethod
    def from_json(cls, data: object) -> Sensitivity:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: It requires something that this version does not know.
            InputError: The format is unknown, a key is missing, or a value is bad.
        """
        fields = check_format(data, "the sensitivity")
        try:
            target, method = strings([fields["target"], fields["method"]], "sensitivity target")
            height, width = (integer(size, "sensitivity shape") for size in fields["shape"])
            return cls(
                target=target,
                method=method,
                images=integer(fields["images"], "sensitivity images"),
                shape=(height, width),
                mix=_fidelity(fields["mix"]),
                layers=tuple(map(_layer, fields["layers"])),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the sensitivity is malformed", got=f"{type(error).__name__}: {error}") from error


def _fidelity(data: Mapping[str, Any]) -> Fidelity:
    sqnr = optional_number(data["sqnr"], "sensitivity sqnr")
    return Fidelity(number(data["agreement"], "sensitivity agreement"), math.inf if sqnr is None else sqnr)


def _layer(data: Mapping[str, Any]) -> LayerSensitivity:
    (name,) = strings([data["name"]], "sensitivity layer")
    require(isinstance(data["int8"], bool), "sensitivity int8", data["int8"], "true or false")
    return LayerSensitivity(
        name=name,
        int8=data["int8"],
        macs=integer(data["macs"], "sensitivity macs"),
        alone=_fidelity(data["alone"]),
        others=_fidelity(data["others"]),
        float_ms=optional_number(data["float_ms"], "sensitivity float_ms"),
        int8_ms=optional_number(data["int8_ms"], "sensitivity int8_ms"),
    )
