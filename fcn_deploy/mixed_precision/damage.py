"""Sensitivity: what INT8 costs in each layer, as the only INT8 layer and as the last one to become INT8."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.sensitivity import Fidelity, LayerSensitivity, Sensitivity
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.parity import Output, ParityTally
from fcn_deploy.graph.layers import list_layers
from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.mixed_precision.layer_times import time_layers
from fcn_deploy.mixed_precision.openvino_times import time_openvino_layers
from fcn_deploy.mixed_precision.prefix_cache import VariantResult, run_variants
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.image import check_size, normalize
from fcn_deploy.runtime.labels import labels_of

_log = logging.getLogger(__name__)

_SILENT = Silent()
Times = Mapping[str, Mapping[str, float]]
_TIMERS: Mapping[str, Callable[..., Times]] = {"onnxruntime": time_layers, "openvino": time_openvino_layers}


def measure_sensitivity(
    candidates: Candidates,
    images: Sequence[NDArray[np.uint8]],
    *,
    threads: int | None = None,
    progress: Progress = _SILENT,
) -> Sensitivity:
    """Measures what INT8 costs in each layer, on images.

    For each layer two graphs are run: INT8 in that layer alone, and all INT8 layers but that one. Up to the layer, the
    first equals the net without INT8 and the second the net with all INT8 layers. These two run once, and the tensors
    that the others start from are kept in a temporary folder. Layers are timed in ONNX Runtime or OpenVINO, whichever
    the candidates are for, in float and in INT8 in turn. TensorRT's graphs are not: the times of a simulation mean
    nothing.

    Args:
        candidates: What is quantised, and how.
        images: uint8 [H, W, 3], RGB, of any sizes; not those that calibration saw.
        threads: CPU threads.
        progress: Told of each layer.

    Raises:
        InputError: There are no images, or one does not fit the net.
    """
    if not len(images):
        raise InputError("no images to measure on", expected="at least one")
    for image in images:
        check_size(image[np.newaxis], candidates.model.spec.min_size)
    feeds = [{"image": normalize(image[np.newaxis], candidates.model.spec.normalization)} for image in images]
    alone_in = {name: functools.partial(candidates.make, (name,)) for name in candidates.layers}
    all_but = {name: functools.partial(candidates.make, without(candidates.start, name)) for name in candidates.start}
    with progress.advancing(f"measuring {len(candidates.layers)} layers on {len(feeds)} images") as advance:
        tally = _Tally(candidates.model.spec, advance, len(feeds) * (2 + len(alone_in) + len(all_but)))
        for result in run_variants(candidates.make(()), alone_in, feeds, threads=threads):
            tally.add("alone", result)
        for result in run_variants(candidates.make(candidates.start), all_but, feeds, threads=threads):
            tally.add("mix", result)
    height, width = images[0].shape[:2]
    times: Times = {"float": {}, "int8": {}}
    if timer := _TIMERS.get(candidates.target):
        graphs = {"float": candidates.make_timed(()), "int8": candidates.make_timed(candidates.layers)}
        with progress.working(f"timing the layers at {height}x{width}"):
            times = complete(timer(graphs, candidates.layers, feeds[0], threads=threads), candidates.layers)
    macs = {layer.name: layer.macs for layer in list_layers(candidates.model.copy(), ImageShape(1, height, width))}
    mix = tally.fidelity("mix", None)
    return Sensitivity(
        target=candidates.target,
        method=candidates.config.method,
        images=len(feeds),
        shape=(height, width),
        mix=mix,
        layers=tuple(
            LayerSensitivity(
                name=name,
                int8=name in candidates.start,
                macs=macs[name] or 0,
                alone=tally.fidelity("alone", name),
                others=tally.fidelity("mix", name) if name in candidates.start else mix,
                float_ms=times["float"].get(name),
                int8_ms=times["int8"].get(name),
            )
            for name in candidates.layers
        ),
    )


def complete(times: Times, layers: Sequence[str]) -> Times:
    """Returns the times of layers if all of them are known, and none otherwise, which is warned of.

    What layers save is compared, and milliseconds of one cannot be compared with the GMACs of another.

    Args:
        times: Milliseconds by layer, of each of several graphs.
        layers: Names of all layers.
    """
    missing = [name for name in layers if any(name not in known for known in times.values())]
    if not missing:
        return times
    _log.warning("the profile does not tell the times of %s; savings are counted in MACs instead", ", ".join(missing))
    return {name: {} for name in times}


def without(layers: Sequence[str], name: str) -> tuple[str, ...]:
    """Returns the layers except the one with that name."""
    return tuple(layer for layer in layers if layer != name)


class _Tally:
    """Compares every result with that of the net without INT8, which comes first."""

    def __init__(self, spec: ModelSpec, advance: Callable[[float], None], total: int) -> None:
        self._spec, self._advance, self._total, self._done = spec, advance, total, 0
        self._references: list[Output] = []
        self._parities: dict[tuple[str, str | None], ParityTally] = {}

    def add(self, run: str, result: VariantResult) -> None:
        output = Output(labels_of(result.logits[0], self._spec), result.logits[0])
        if len(self._references) == result.image and result.variant is None:
            self._references.append(output)
        self._parities.setdefault((run, result.variant), ParityTally()).add(self._references[result.image], output)
        self._done += 1
        self._advance(self._done / self._total)

    def fidelity(self, run: str, variant: str | None) -> Fidelity:
        parity = self._parities[run, variant].result()
        assert parity.sqnr is not None
        return Fidelity(parity.agreement, parity.sqnr)
