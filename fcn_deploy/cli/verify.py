"""`fcn-deploy verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.cli.console import print_json, say
from fcn_deploy.cli.options.groups import (
    gate_option,
    gpu_options,
    json_option,
    model_options,
    recursive_option,
    threads_option,
    weights_options,
)
from fcn_deploy.cli.options.types import FOLDER, NAME, PATH
from fcn_deploy.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from fcn_deploy.workflows.verifying import Verification


@click.command("verify", short_help="Check an engine against its gate.")
@click.argument("engine", type=NAME)
@click.option("--reference", type=NAME, metavar="REF", help="An exported model, an engine, or pytorch:CHECKPOINT.")
@click.option("--weights", type=PATH, help="The same as --reference pytorch:CHECKPOINT.")
@click.option("--data", type=FOLDER, metavar="DIR", required=True, help="Folder of images to compare on.")
@click.option("--max-images", type=click.IntRange(1), help="At most so many, evenly spread over the folder.")
@recursive_option
@gate_option
@model_options
@weights_options
@threads_option
@gpu_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Compare an ENGINE with a reference on images, and fail (exit 3) if it is too far off.

    Gates: FP32 99.99% agreement and an error of 1e-4 of the logits' range, FP16 99.5%, INT8 97%; others with --gate.
    The interval of the agreement is of 95% (bootstrap over the images).
    """
    from fcn_deploy.workflows.verifying import verify

    with TerminalProgress() as progress:
        found = verify(**options, progress=progress)
    if found.noise:
        say("warning: this engine was calibrated on noise, not on images", err=True)
    if as_json:
        print_json(found.to_json())
    else:
        say(_describe(found))
    found.require_passed()


def _describe(found: Verification) -> str:
    from fcn_deploy.reporting.units import interval_95

    error = "" if found.error is None else f", error {found.error:.1e}, SQNR {found.sqnr:.1f} dB"
    agreement = f"agreement {found.agreement:.3%}{interval_95(*found.interval, '.3%')}"
    if found.warnings:
        agreement = "; ".join(found.warnings).removeprefix(f"{found.engine}: ")
        error = "" if not found.passed else error
    outcome = "passed" if found.passed else "failed"
    count = found.parity.images
    images = f"{count} {'image' if count == 1 else 'images'}"
    return f"{outcome}: {found.engine} ({found.precision}), {agreement}{error}, over {images}"
