"""`fcn-deploy evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.cli.console import print_json, print_table, say
from fcn_deploy.cli.options.groups import (
    gpu_options,
    json_option,
    labels_options,
    model_options,
    recursive_option,
    threads_option,
    weights_options,
)
from fcn_deploy.cli.options.types import FOLDER, NAME, IndicesType
from fcn_deploy.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from fcn_deploy.workflows.evaluating import Evaluation


@click.command("evaluate", short_help="Accuracy against ground truth.")
@click.argument("engine", type=NAME)
@click.option("--data", type=FOLDER, metavar="DIR", required=True, help="Folder of images.")
@click.option(
    "--labels",
    type=FOLDER,
    metavar="DIR",
    required=True,
    help="Their ground truth, of the same names: index images, or masks in the colours of the classes.",
)
@click.option("--ignore-index", type=IndicesType(), help="Labels that do not count.  [default: that of the engine]")
@labels_options
@recursive_option
@click.option(
    "--reference", type=NAME, metavar="REF", help="Compare with an engine or model, or with pytorch:CHECKPOINT."
)
@click.option("--max-images", type=click.IntRange(1), help="At most so many, evenly spread over the folder.")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="At most so many neighbours of equal size run together.",
)
@model_options
@weights_options
@threads_option
@gpu_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Measure the accuracy of an ENGINE, an exported model or pytorch:CHECKPOINT against ground truth.

    Gives IoU of each class, mIoU, pixel accuracy and frequency-weighted IoU; with a reference also the agreement and
    the drop of mIoU, each with its 95% interval (bootstrap over the images). Says which share of the ground truth is
    ignored and which classes never occur, and warns if the figures say little.
    """
    from fcn_deploy.workflows.evaluating import evaluate

    with TerminalProgress() as progress:
        found = evaluate(**options, progress=progress)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)


def _show(found: Evaluation) -> None:
    from fcn_deploy.reporting.tables import accuracy_table, describe_truth
    from fcn_deploy.reporting.units import interval_95

    own, against = found.accuracy, found.reference
    title = f"{found.engine} on {found.images} images; IoU in points"
    other = None if against is None else against.accuracy.confusion
    print_table(accuracy_table(title, own.classes, own.confusion, other))
    say(
        f"mIoU {own.miou:.2f}, pixel accuracy {own.pixel_accuracy:.2f}, "
        f"frequency-weighted IoU {own.frequency_weighted_iou:.2f}"
    )
    if found.truth is not None:
        say(describe_truth(found.truth))
    if against is not None:
        parity, drop = against.parity, against.drop
        agreement = (
            "not measured"
            if not parity.measured
            else f"{parity.agreement:.3%}{interval_95(parity.agreement_low, parity.agreement_high, '.3%')}"
        )
        points = f"{drop.points:.2f}{interval_95(drop.low, drop.high, '.2f')}"
        say(f"against {against.name}: agreement {agreement}, mIoU drop {points}")
