"""`fcn-deploy evaluate`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.cli.console import TerminalProgress, print_json, print_table
from fcn_deploy.cli.options import PATH, gpu_from, gpu_options, json_option, model_from, model_options, threads_option

if TYPE_CHECKING:
    from fcn_deploy.artifacts.measures import Drop, Parity
    from fcn_deploy.evaluation.accuracy import Matrix


@click.command("evaluate", short_help="Accuracy against ground truth.")
@click.argument("engine")
@click.option("--data", type=PATH, metavar="DIR", required=True, help="Folder of images.")
@click.option(
    "--labels",
    type=PATH,
    metavar="DIR",
    required=True,
    help="Their ground truth, of the same names: index images, or masks in the colours of the classes.",
)
@click.option("--ignore-index", type=int, help="Label that does not count.  [default: the engine's spec]")
@click.option("--reference", metavar="REF", help="Compare with an engine or model, or with pytorch:CHECKPOINT.")
@click.option("--max-images", type=click.IntRange(1), help="At most so many, evenly spread over the folder.")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="At most so many neighbours of equal size run together.",
)
@model_options
@threads_option
@gpu_options
@json_option
def command(
    engine: str,
    data: Path,
    labels: Path,
    ignore_index: int | None,
    reference: str | None,
    max_images: int | None,
    batch: int,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the accuracy of an ENGINE, an exported model or pytorch:CHECKPOINT against ground truth.

    Gives IoU of each class, mIoU, pixel accuracy and frequency-weighted IoU; with a reference also the agreement and
    the drop of mIoU, each with its 95% interval, by bootstrap over the images.
    """
    from fcn_deploy.data.folders import ImageFolder
    from fcn_deploy.evaluation.comparison import compare, confusion_matrices
    from fcn_deploy.workflows import references as sources

    images = ImageFolder.open(data, max_images=max_images)
    with ExitStack() as opened:
        names = (engine, reference) if reference else (engine,)
        segmenters = sources.open_all(names, **model_from(options), **gpu_from(options), threads=threads)
        for each in segmenters.values():
            opened.enter_context(each)
        segmenter, spec = segmenters[engine], segmenters[engine].spec
        ignored = spec.ignore_index if ignore_index is None else ignore_index
        samples = sources.samples(
            images, labels, "evaluating", palette=spec.palette, ignore_index=ignored, progress=TerminalProgress()
        )
        if reference is None:
            matrices = confusion_matrices(segmenter, samples, ignored, batch=batch)
            report = _report(engine, spec.classes, matrices.sum(0), len(images), ignored)
            _show(report, spec.classes, matrices.sum(0), None, as_json)
            return
        results = compare(segmenters[reference], [segmenter], samples, ignored, batch=batch)
    found = results.engines[0]
    assert found.confusion is not None
    assert results.reference is not None
    total, total_reference = found.confusion.sum(0), results.reference.sum(0)
    report = _report(engine, spec.classes, total, len(images), ignored)
    report["reference"] = _comparison(reference, spec.classes, total_reference, found.parity, found.drop)
    _show(report, spec.classes, total, total_reference, as_json)


def _report(name: str, classes: tuple[str, ...], matrix: Matrix, images: int, ignored: int | None) -> dict[str, Any]:
    return {"engine": name, "images": images, "ignore_index": ignored, **_scores(classes, matrix)}


def _scores(classes: tuple[str, ...], matrix: Matrix) -> dict[str, Any]:
    from fcn_deploy.evaluation.accuracy import class_iou, frequency_weighted_iou, mean_iou, pixel_accuracy

    return {
        "miou": float(mean_iou(matrix)),
        "pixel_accuracy": pixel_accuracy(matrix),
        "frequency_weighted_iou": frequency_weighted_iou(matrix),
        "iou": dict(zip(classes, class_iou(matrix).tolist(), strict=True)),
        "confusion": matrix.tolist(),
    }


def _comparison(
    name: str, classes: tuple[str, ...], matrix: Matrix, parity: Parity, drop: Drop | None
) -> dict[str, Any]:
    return {
        "name": name,
        **_scores(classes, matrix),
        "agreement": parity.agreement,
        "agreement_low": parity.agreement_low,
        "agreement_high": parity.agreement_high,
        "miou_drop": asdict(drop) if drop else None,
    }


def _show(
    report: dict[str, Any], classes: tuple[str, ...], matrix: Matrix, reference: Matrix | None, as_json: bool
) -> None:
    from fcn_deploy.reporting.tables import accuracy_table
    from fcn_deploy.reporting.units import interval_95

    if as_json:
        print_json(report)
        return
    title = f"{report['engine']} on {report['images']} images; IoU in points"
    print_table(accuracy_table(title, classes, matrix, reference))
    click.echo(
        f"mIoU {report['miou']:.2f}, pixel accuracy {report['pixel_accuracy']:.2f}, "
        f"frequency-weighted IoU {report['frequency_weighted_iou']:.2f}"
    )
    if "reference" in report:
        against = report["reference"]
        drop = against["miou_drop"]
        agreement_interval = interval_95(against["agreement_low"], against["agreement_high"], ".3%")
        click.echo(
            f"against {against['name']}: agreement {against['agreement']:.3%}{agreement_interval}, "
            f"mIoU drop {drop['points']:.2f}{interval_95(drop['low'], drop['high'], '.2f')}"
        )
