"""The summary of a deployment whose engines ran on this machine's CPU, or were simulated on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.engines.engine import source_of
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.workflows.measured import Measured, recommended, summary_warnings
from fcn_deploy.workflows.origins import layer_costs, made_here, origin_of

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel


def deployment_summary(
    file: str,
    net: ExportedModel,
    ranges: Ranges | None,
    measured: Measured,
    engines: Sequence[EngineSummary],
    timing: BenchmarkConfig,
    *,
    judged: int,
    resumed: Sequence[str],
    command: Sequence[str],
) -> Summary:
    """Returns what `summary.json` says, before anything is written.

    Args:
        file: Name of the exported model's file.
        net: The exported model.
        ranges: Of its tensors, or None.
        measured: What was measured.
        engines: What was measured of each engine, held against its gate.
        timing: How long times were measured.
        judged: Number of images that the gates rest on.
        resumed: The stages that were taken over from an earlier run.
        command: The words of the command line that repeats it.
    """
    return Summary(
        model=file,
        variant=net.spec.variant,
        export_error=net.error or 0.0,
        calibration={"observed": ranges.data.count if ranges else 0, "judged": judged},
        shape=measured.shape,
        pytorch_ms=measured.median("pytorch"),
        pytorch_miou=measured.pytorch_miou,
        engines=tuple(engines),
        truth=measured.truth,
        normalization=net.spec.normalization,
        warnings=summary_warnings(measured, net.spec, engines),
        conditions=measured.conditions if measured.timings else None,
        rounds=measured.rounds,
        resumed=tuple(resumed),
        ship=recommended(measured, engines) if measured.timings else None,
        pytorch_percentiles_ms=measured.percentiles("pytorch", timing),
        pytorch_class_iou=measured.class_ious.get("pytorch", ()),
        origin=origin_of(net.spec, source_of(net, ranges), made_here(), command),
        layers=layer_costs(net, measured.shape),
    )
