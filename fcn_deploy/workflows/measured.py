"""What `deploy` measured, as its summary states it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import EngineSummary
from fcn_deploy.engines.engine import Engine
from fcn_deploy.evaluation.accuracy import mean_iou
from fcn_deploy.evaluation.comparison import Comparison, Comparisons
from fcn_deploy.evaluation.gates import GateResult
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, ratio, time_in_turn
from fcn_deploy.evaluation.truth import chance_warnings, parity_warnings, truth_warnings
from fcn_deploy.progress import Progress
from fcn_deploy.runtime import Segmenter

_log = logging.getLogger(__name__)


def summary_warnings(found: Comparisons, spec: ModelSpec, engines: Sequence[EngineSummary]) -> tuple[str, ...]:
    """Returns what must be known before the figures of a deployment are believed; all but the last are logged here."""
    warnings, miou = [], reference_miou(found)
    if found.truth is not None and miou is not None:
        warnings += truth_warnings(found.truth, spec.num_classes)
        warnings += chance_warnings("PyTorch", miou, found.truth, spec.num_classes)
    for engine in engines:
        warnings += parity_warnings(engine.file, engine.parity)
        against_fp32 = engine.vs_fp32
        if engine.precision != "fp32" and against_fp32.low > 1:  # in three rounds of four, not by chance
            what = f"{engine.file} takes {against_fp32.median:.2f}x the time of FP32 on this machine: it is slower"
            warnings.append(what)
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


def reference_miou(found: Comparisons) -> float | None:
    """Returns the mIoU of the reference, in points; None if there was no ground truth."""
    return None if found.reference is None else float(mean_iou(found.reference.sum(0)))


def engine_summary(
    file: str,
    engine: Engine,
    comparison: Comparison,
    result: GateResult,
    timings: Mapping[str, Timing],
    config: BenchmarkConfig,
) -> EngineSummary:
    """Returns what was measured of one engine, `timings` by precision and `pytorch`."""
    precision, confusion = engine.sidecar.precision.requested, comparison.confusion
    own = timings[precision]
    return EngineSummary(
        file=file,
        bytes=len(engine.data),
        precision=precision,
        gate=result.gate,
        failures=result.failures,
        parity=comparison.parity,
        miou=None if confusion is None else float(mean_iou(confusion.sum(0))),
        miou_drop=comparison.drop,
        median_ms=own.median,
        percentiles_ms={f"{share:g}": own.percentile(share) for share in config.percentiles},
        vs_pytorch=ratio(own, timings["pytorch"]),
        vs_fp32=ratio(own, timings["fp32"]),
    )


def time_engines(
    contestants: Mapping[str, Segmenter], image: NDArray[np.uint8], config: BenchmarkConfig, progress: Progress
) -> dict[str, Timing]:
    """Returns the latency of each of several engines, by name, measured in turn from an image to its labels."""
    runs = {name: functools.partial(segmenter, image) for name, segmenter in contestants.items()}
    text = f"measuring at {image.shape[0]}x{image.shape[1]}, image to labels, in turn"
    with progress.measuring(text) as show:
        return {timing.name: timing for timing in time_in_turn(runs, config, show)}
