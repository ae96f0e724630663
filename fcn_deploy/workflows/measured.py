"""What `deploy` measured, as its summary states it."""

from __future__ import annotations

import base64
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity, Ratio
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.artifacts.sidecar import SIMULATES
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import ClassIou, EngineSummary
from fcn_deploy.diagnostics.conditions import timing_warnings
from fcn_deploy.engines.engine import Engine
from fcn_deploy.evaluation.accuracy import Matrix, class_iou, mean_iou
from fcn_deploy.evaluation.comparison import Comparisons
from fcn_deploy.evaluation.gates import GateResult
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, ratio, time_in_turn
from fcn_deploy.evaluation.shipping import Contender, recommend
from fcn_deploy.evaluation.truth import chance_warnings, parity_warnings, truth_warnings
from fcn_deploy.files import sha256_bytes
from fcn_deploy.progress import Progress
from fcn_deploy.reporting.gallery import Kept
from fcn_deploy.runtime import Segmenter

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Measured:
    """What is measured of the engines of a deployment, before any gate looks at it.

    Attributes:
        shape: [height, width] of the image that the times are of.
        parities: Against PyTorch, by precision.
        drops: Of mIoU against PyTorch, by precision; None without labels.
        mious: In points, by precision; None without labels.
        pytorch_miou: Of PyTorch, likewise.
        truth: What the ground truth says; None without labels.
        timings: By precision, and of `pytorch`; empty if the engines are simulations, whose time means nothing.
        conditions: That the times were measured under.
        class_ious: IoU of each class in points, by precision, and of `pytorch`; empty without labels.
        kept: The images that each engine agrees on the least, by precision; empty if none were kept.
    """

    shape: tuple[int, int]
    parities: Mapping[str, Parity]
    drops: Mapping[str, Drop | None]
    mious: Mapping[str, float | None]
    pytorch_miou: float | None
    truth: GroundTruth | None
    timings: Mapping[str, Timing]
    conditions: Conditions
    class_ious: Mapping[str, ClassIou] = field(default_factory=dict)
    kept: Mapping[str, Sequence[Kept]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        found: Comparisons,
        precisions: Iterable[str],
        timings: Mapping[str, Timing],
        conditions: Conditions,
        kept: Mapping[str, Sequence[Kept]],
    ) -> Measured:
        """Makes it of a comparison, whose engines are those of `precisions`, in their order."""
        engines = dict(zip(precisions, found.engines, strict=True))
        return cls(
            shape=shape,
            parities={name: each.parity for name, each in engines.items()},
            drops={name: each.drop for name, each in engines.items()},
            mious={name: _miou(each.confusion) for name, each in engines.items()},
            pytorch_miou=_miou(found.reference),
            truth=found.truth,
            timings=timings,
            conditions=conditions,
            class_ious={
                name: _of_classes(matrix)
                for name, matrix in (
                    ("pytorch", found.reference),
                    *((name, each.confusion) for name, each in engines.items()),
                )
                if matrix is not None
            },
            kept=kept,
        )

    @property
    def rounds(self) -> int | None:
        """How often each engine was timed; None if none was."""
        return next((len(timing.latencies) for timing in self.timings.values()), None)

    def median(self, name: str) -> float | None:
        """Returns the median latency in milliseconds of an engine, by precision, or of `pytorch`; None if untimed."""
        return self.timings[name].median if name in self.timings else None

    def time_over(self, precision: str, other: str) -> Ratio | None:
        """Returns the time of an engine over that of another, or of `pytorch`; None if one of them was not timed."""
        if precision not in self.timings or other not in self.timings:
            return None
        return ratio(self.timings[precision], self.timings[other])

    def speedup(self, precision: str) -> Ratio:
        """Returns the time of the FP32 engine over that of another, so that more is faster."""
        return ratio(self.timings["fp32"], self.timings[precision])

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data; NaN and infinite figures stay what they are."""
        return {
            "shape": list(self.shape),
            "parities": {name: asdict(parity) for name, parity in self.parities.items()},
            "drops": {name: None if drop is None else asdict(drop) for name, drop in self.drops.items()},
            "mious": dict(self.mious),
            "pytorch_miou": self.pytorch_miou,
            "truth": None if self.truth is None else self.truth.to_json(),
            "latencies_ms": {name: timing.latencies.tolist() for name, timing in self.timings.items()},
            "conditions": self.conditions.to_json(),
            "class_ious": {name: list(values) for name, values in self.class_ious.items()},
            "kept": {name: [_kept_to_json(each) for each in kept] for name, kept in self.kept.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        truth, conditions = data["truth"], Conditions.from_json(data["conditions"])
        assert conditions is not None
        height, width = data["shape"]
        return cls(
            shape=(height, width),
            parities={name: Parity.from_json(parity) for name, parity in data["parities"].items()},
            drops={name: None if drop is None else Drop.from_json(drop) for name, drop in data["drops"].items()},
            mious=data["mious"],
            pytorch_miou=data["pytorch_miou"],
            truth=None if truth is None else GroundTruth.from_json(truth),
            timings={name: Timing(name, np.array(times)) for name, times in data["latencies_ms"].items()},
            conditions=conditions,
            class_ious={name: tuple(values) for name, values in data["class_ious"].items()},
            kept={name: tuple(map(_kept_from_json, kept)) for name, kept in data["kept"].items()},
        )

    def percentiles(self, name: str, config: BenchmarkConfig) -> dict[str, float]:
        """Returns the percentiles of the latency of an engine, or of `pytorch`; empty if it was not timed."""
        own = self.timings.get(name)
        return {} if own is None else {f"{each:g}": own.percentile(each) for each in config.percentiles}


def _kept_to_json(kept: Kept) -> dict[str, Any]:
    pictures = {kind: base64.b64encode(content).decode() for kind, content in kept.pictures.items()}
    return {**asdict(replace(kept, pictures={})), "pictures": pictures}


def _kept_from_json(data: Mapping[str, Any]) -> Kept:
    height, width = data["shape"]
    pictures = {kind: base64.b64decode(content) for kind, content in data["pictures"].items()}
    return Kept(data["name"], data["agreement"], (height, width), pictures)


def _of_classes(confusion: Matrix) -> ClassIou:
    """Returns the IoU of each class by confusion matrices, [N, C, C], in points."""
    return tuple(None if np.isnan(value) else float(value) for value in class_iou(confusion.sum(0)))


def _miou(confusion: Matrix | None) -> float | None:
    """Returns the mIoU of confusion matrices, [N, C, C], in points."""
    return None if confusion is None else float(mean_iou(confusion.sum(0)))


def summary_warnings(found: Measured, spec: ModelSpec, engines: Sequence[EngineSummary]) -> tuple[str, ...]:
    """Returns what must be known before the figures of a deployment are believed; all but the last are logged here."""
    warnings, miou = [], found.pytorch_miou
    if found.truth is not None and miou is not None:
        warnings += truth_warnings(found.truth, spec.num_classes)
        warnings += chance_warnings("PyTorch", miou, found.truth, spec.num_classes)
    for engine in engines:
        warnings += parity_warnings(engine.file, engine.parity)
        for other, against in (("FP32", engine.vs_fp32), ("FP16", engine.vs_fp16)):
            # In three rounds of four, not by chance.
            if against is not None and engine.precision.upper() != other and against.low > 1:
                what = f"{engine.file} takes {against.median:.2f}x the time of {other} on this machine: it is slower"
                warnings.append(what)
    warnings += timing_warnings(found.conditions) if found.timings else ()
    for warning in warnings:
        _log.warning("%s", warning)
    normalization = spec.normalization
    if normalization.assumed:  # said once already, when the checkpoint was read
        mean, std = (",".join(f"{each:g}" for each in triple) for triple in (normalization.mean, normalization.std))
        warnings.append(
            f"the normalisation was assumed: {normalization.color}, scale {normalization.scale:g}, mean {mean}, "
            f"std {std}; if the net was trained with others, state them"
        )
    return tuple(warnings)


def engine_summary(
    file: str, engine: Engine, measured: Measured, result: GateResult, config: BenchmarkConfig
) -> EngineSummary:
    """Returns what was measured of one engine."""
    precision = engine.sidecar.precision.requested
    found, asked = engine.sidecar.precision.achieved_layers or {}, engine.sidecar.precision.layers
    return EngineSummary(
        file=file,
        bytes=len(engine.data),
        precision=precision,
        gate=result.gate,
        failures=result.failures,
        parity=measured.parities[precision],
        miou=measured.mious[precision],
        miou_drop=measured.drops[precision],
        median_ms=measured.median(precision),
        percentiles_ms=measured.percentiles(precision, config),
        vs_pytorch=measured.time_over(precision, "pytorch"),
        vs_fp32=measured.time_over(precision, "fp32"),
        simulates=engine.sidecar.target.get(SIMULATES),
        vs_fp16=measured.time_over(precision, "fp16"),
        sha256=sha256_bytes(engine.data),
        class_iou=measured.class_ious.get(precision, ()),
        layers={name: found.get(name) or asked[name] for name in asked},
    )


def recommended(
    found: Measured,
    engines: Sequence[EngineSummary],
    recommend: Callable[[Sequence[Contender]], Recommendation] = recommend,
) -> Recommendation:
    """Returns which engine of a deployment to ship.

    Args:
        found: What was measured.
        engines: The engines.
        recommend: One of the rules of `evaluation.shipping`.
    """
    contenders = (
        Contender(each.file, each.precision, each.gate.passed, found.timings[each.precision]) for each in engines
    )
    return recommend(tuple(contenders))


def time_engines(
    contestants: Mapping[str, Segmenter], image: NDArray[np.uint8], config: BenchmarkConfig, progress: Progress
) -> dict[str, Timing]:
    """Returns the latency of each of several engines, by name, measured in turn from an image to its labels."""
    runs = {name: functools.partial(segmenter, image) for name, segmenter in contestants.items()}
    text = f"measuring at {image.shape[0]}x{image.shape[1]}, image to labels, in turn"
    with progress.measuring(text) as show:
        return {timing.name: timing for timing in time_in_turn(runs, config, show)}
