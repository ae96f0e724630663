"""`fcn-deploy verify`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.cli.console import TerminalProgress, print_json
from fcn_deploy.cli.options import (
    PATH,
    GateType,
    gpu_from,
    gpu_options,
    json_option,
    model_from,
    model_options,
    threads_option,
)

if TYPE_CHECKING:
    from fcn_deploy.evaluation.gates import AskedGate


@click.command("verify", short_help="Hold an engine against its gate.")
@click.argument("engine", type=PATH)
@click.option("--reference", metavar="REF", help="An exported model, an engine, or pytorch:CHECKPOINT.")
@click.option("--weights", type=PATH, help="Short for --reference pytorch:CHECKPOINT.")
@click.option("--data", type=PATH, metavar="DIR", required=True, help="Folder of images to compare on.")
@click.option("--max-images", type=click.IntRange(1), help="At most so many, evenly spread over the folder.")
@click.option(
    "--gate",
    "gates",
    type=GateType(),
    multiple=True,
    help="What the engine must keep, such as agreement>=98% or error<=1e-3, in place of its precision's; repeatable.",
)
@model_options
@threads_option
@gpu_options
@json_option
def command(
    engine: Path,
    reference: str | None,
    weights: Path | None,
    data: Path,
    max_images: int | None,
    gates: tuple[AskedGate, ...],
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare an ENGINE with a reference on images, and fail (exit 3) if it is too far off.

    Gates: FP32 99.99% of pixels labelled alike and an error of 1e-4 of the logits' range, FP16 99.5%, INT8 97%;
    others with --gate. The interval of the agreement is of 95%, by bootstrap over the images.
    """
    from fcn_deploy.artifacts.ranges import OBSERVED_ON_NOISE
    from fcn_deploy.data.folders import ImageFolder
    from fcn_deploy.errors import GateError, UsageError
    from fcn_deploy.evaluation.comparison import assess
    from fcn_deploy.evaluation.gates import criteria_by_precision, judge
    from fcn_deploy.reporting.units import interval_95
    from fcn_deploy.workflows import references as sources

    if (reference is None) == (weights is None):
        raise UsageError("verify needs one reference", expected="--reference REF or --weights F")
    name = reference or f"{sources.PYTORCH}{weights}"
    images = ImageFolder.open(data, max_images=max_images)
    with ExitStack() as opened:
        both = sources.open_all((str(engine), name), **model_from(options), **gpu_from(options), threads=threads)
        for each in both.values():
            opened.enter_context(each)
        candidate = both[str(engine)]
        precision = candidate.sidecar.precision.requested if candidate.sidecar else "fp32"
        not_measured = {"miou_drop": "ask for agreement; evaluate --labels DIR --reference REF measures the drop"}
        if "image" in (candidate.io, both[name].io):
            not_measured["error"] = "compare an engine built with --io tensor with an exported model or a checkpoint"
        criteria = criteria_by_precision(gates, [precision], not_measured).get(precision, ())
        samples = sources.samples(images, None, "verifying", progress=TerminalProgress())
        parity = assess(both[name], [candidate], samples, None).engines[0].parity
        source = candidate.sidecar.source.calibration if candidate.sidecar else None
    if source and source.get("random"):
        click.echo(f"warning: {OBSERVED_ON_NOISE}", err=True)
    verdict = judge(precision, parity, criteria=criteria)
    if as_json:
        print_json(
            {"engine": str(engine), "reference": name, "precision": precision, **asdict(parity), **asdict(verdict)}
        )
    else:
        error = f", error {parity.error:.1e}, SQNR {parity.sqnr:.1f} dB" if parity.error is not None else ""
        outcome = "failed" if verdict.failures else "passed"
        agreement = f"{parity.agreement:.3%}{interval_95(parity.agreement_low, parity.agreement_high, '.3%')}"
        click.echo(f"{outcome}: {engine} ({precision}), agreement {agreement}{error}, over {parity.images} images")
    if verdict.failures:
        raise GateError(f"{engine} is too far from {name}", got="; ".join(verdict.failures))
