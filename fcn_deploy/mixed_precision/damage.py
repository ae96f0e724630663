"""Sensitivity: what each layer costs in INT8, alone, and as the last one to be given back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.parity import Output, ParityTally
from fcn_deploy.graph.layers import list_layers
from fcn_deploy.graph.model import parse
from fcn_deploy.mixed_precision.candidates import Mixer
from fcn_deploy.mixed_precision.layer_times import time_layers
from fcn_deploy.mixed_precision.prefix_cache import Result, rerun
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.image import normalize

_SILENT = Silent()


@dataclass(frozen=True)
class Fidelity:
    """How far logits are from those of the net without INT8.

    Attributes:
        agreement: Share of pixels labelled alike, 0..1.
        sqnr: Signal to quantisation noise ratio of the logits in dB; infinite where they are equal.
    """

    agreement: float
    sqnr: float


@dataclass(frozen=True)
class LayerSensitivity:
    """What INT8 costs and saves in one layer.

    Attributes:
        name: Of the layer.
        int8: Whether the mix that is looked at runs it in INT8.
        macs: How often it multiplies and adds for one of the images.
        alone: The net with INT8 in this layer alone.
        others: The mix with this layer given back; the mix itself where it is not INT8 there.
        float_ms: Milliseconds of the layer in float, for one of the images; None where they cannot be told.
        int8_ms: Likewise in INT8.
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
        """What INT8 saves in this layer: milliseconds where they were measured, else GMACs."""
        if self.float_ms is None or self.int8_ms is None:
            return self.macs / 1e9
        return self.float_ms - self.int8_ms


@dataclass(frozen=True)
class Sensitivity:
    """What INT8 costs in each layer of a net.

    Attributes:
        target: What the graphs were made for: `onnxruntime` or `tensorrt`.
        method: How ranges were chosen.
        images: How many images it was measured on.
        shape: [height, width] of the image that multiplications and times are of.
        mix: The mix that is looked at, as a whole.
        layers: In graph order, every one that can be quantised.
    """

    target: str
    method: str
    images: int
    shape: tuple[int, int]
    mix: Fidelity
    layers: tuple[LayerSensitivity, ...]

    def damage(self, layer: LayerSensitivity) -> float:
        """Returns the share of pixels, 0..1, that INT8 in a layer moves to another label; negative where it helps.

        The mean of the agreement that the layer costs as the only INT8 layer and as the last one of the mix: the first
        and the last of the places over which its Shapley value (https://arxiv.org/abs/1705.07874) would average.
        Neither alone will do, for rounding errors of several layers add up and cancel: the sum of what each costs alone
        is not what they cost together.
        """
        first = 1 - layer.alone.agreement
        last = layer.others.agreement - self.mix.agreement
        return (first + last) / 2

    def by_damage(self) -> list[LayerSensitivity]:
        """Returns the INT8 layers of the mix, the one of most damage first."""
        return sorted((layer for layer in self.layers if layer.int8), key=self.damage, reverse=True)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data; an infinite SQNR, of logits that are equal, is null."""

        def written(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: written(each) for key, each in value.items()}
            if isinstance(value, list | tuple):
                return [written(each) for each in value]
            return None if isinstance(value, float) and not np.isfinite(value) else value

        return {"format": 1, **written(asdict(self))}


def measure_sensitivity(
    mixer: Mixer,
    images: Sequence[NDArray[np.uint8]],
    *,
    threads: int | None = None,
    progress: Progress = _SILENT,
) -> Sensitivity:
    """Measures what INT8 costs in each layer, on images.

    For each layer two mixes are run: INT8 in it alone, and the mixer's own mix without it. What precedes the layer is
    the same in the net without INT8 and in the whole mix: these two run once, and what the others start from is kept in
    a temporary folder. Layers are timed on ONNX Runtime alone: a simulation's times mean nothing.

    Args:
        mixer: What is quantised, and how.
        images: uint8 [H, W, 3], RGB, of any sizes; not those that were observed.
        threads: CPU threads.
        progress: Told of each layer.

    Raises:
        InputError: There are no images, or one does not fit the net.
    """
    if not len(images):
        raise InputError("no images to measure on", expected="at least one")
    feeds = [{"image": normalize(image[np.newaxis], mixer.spec.normalization)} for image in images]
    alone_in = {name: functools.partial(mixer.make, (name,)) for name in mixer.layers}
    all_but = {name: functools.partial(mixer.make, without(mixer.start, name)) for name in mixer.start}
    with progress.advancing(f"measuring {len(mixer.layers)} layers on {len(feeds)} images") as advance:
        tally = _Tally(advance, len(feeds) * (2 + len(alone_in) + len(all_but)))
        for result in rerun(mixer.make(()), alone_in, feeds, threads=threads):
            tally.add("alone", result)
        for result in rerun(mixer.make(mixer.start), all_but, feeds, threads=threads):
            tally.add("mix", result)
    height, width = images[0].shape[:2]
    times: dict[str, dict[str, float]] = {"float": {}, "int8": {}}
    if mixer.target == "onnxruntime":
        models = {"float": mixer.make(()), "int8": mixer.make(mixer.layers)}
        with progress.working(f"timing the layers at {height}x{width}"):
            times = time_layers(models, mixer.layers, feeds[0], threads=threads)
    macs = {layer.name: layer.macs for layer in list_layers(parse(mixer.model), ImageShape(1, height, width))}
    mix = tally.fidelity("mix", None)
    return Sensitivity(
        target=mixer.target,
        method=mixer.config.method,
        images=len(feeds),
        shape=(height, width),
        mix=mix,
        layers=tuple(
            LayerSensitivity(
                name=name,
                int8=name in mixer.start,
                macs=macs[name] or 0,
                alone=tally.fidelity("alone", name),
                others=tally.fidelity("mix", name) if name in mixer.start else mix,
                float_ms=times["float"].get(name),
                int8_ms=times["int8"].get(name),
            )
            for name in mixer.layers
        ),
    )


def without(layers: Sequence[str], name: str) -> tuple[str, ...]:
    """Returns the layers but the one of that name."""
    return tuple(layer for layer in layers if layer != name)


class _Tally:
    """Compares every result with that of the net without INT8, which comes first."""

    def __init__(self, advance: Callable[[float], None], total: int) -> None:
        self._advance, self._total, self._done = advance, total, 0
        self._references: list[Output] = []
        self._parities: dict[tuple[str, str | None], ParityTally] = {}

    def add(self, run: str, result: Result) -> None:
        output = Output(result.logits[0].argmax(0), result.logits[0])
        if len(self._references) == result.image and result.variant is None:
            self._references.append(output)
        self._parities.setdefault((run, result.variant), ParityTally()).add(self._references[result.image], output)
        self._done += 1
        self._advance(self._done / self._total)

    def fidelity(self, run: str, variant: str | None) -> Fidelity:
        parity = self._parities[run, variant].result()
        assert parity.sqnr is not None
        return Fidelity(parity.agreement, parity.sqnr)
