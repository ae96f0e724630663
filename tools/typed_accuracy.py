"""Measures TensorRT's typed graphs against the exported model, simulated on this machine's CPU.

    python tools/typed_accuracy.py fcn8s.onnx ranges.json --data images --labels labels --ignore-index 11

FP16, and INT8 over FP16 by each calibration method; the ranges are those of `fcn-deploy calibrate`. The simulation is
`build.typed.simulate`, whose docstring says what it does not reproduce.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import click

from fcn_deploy.build.engine import BuildConfig
from fcn_deploy.build.typed import Base, TypedGraph, simulate, typed_graph
from fcn_deploy.cli.options import PATH
from fcn_deploy.data import ImageFolder
from fcn_deploy.evaluate.accuracy import mean_iou
from fcn_deploy.evaluate.assess import Assessment, assess
from fcn_deploy.quant.methods import METHODS
from fcn_deploy.quant.ranges import Ranges
from fcn_deploy.runtime import Segmenter
from fcn_deploy.sources import samples


@click.command()
@click.argument("model", type=PATH)
@click.argument("ranges", type=PATH)
@click.option("--data", type=PATH, required=True)
@click.option("--labels", type=PATH, required=True)
@click.option("--ignore-index", type=int)
@click.option("--max-images", type=click.IntRange(1))
@click.option("--base", type=click.Choice(["fp16", "fp32"]), default="fp16", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
def main(
    model: Path,
    ranges: Path,
    data: Path,
    labels: Path,
    ignore_index: int | None,
    max_images: int | None,
    base: Base,
    threads: int,
) -> None:
    """Prints one JSON document."""
    content, seen = model.read_bytes(), Ranges.load(ranges)
    graphs = {
        f"int8 {method}": typed_graph(content, BuildConfig("int8", "tensor", method), seen, base) for method in METHODS
    }
    if base == "fp16":
        graphs = {"fp16": typed_graph(content, BuildConfig("fp16", "tensor"), seen), **graphs}
    folder = ImageFolder.open(data, max_images=max_images)
    with ExitStack() as stack:
        reference = stack.enter_context(Segmenter(model, threads=threads))
        engines = [stack.enter_context(Segmenter(simulate(graph, threads=threads))) for graph in graphs.values()]
        found = assess(reference, engines, samples(folder, labels, "comparing"), ignore_index)
    report = {
        "images": len(folder),
        "reference_miou": None if found.reference is None else float(mean_iou(found.reference.sum(0))),
        "graphs": {
            name: _entry(graph, assessment)
            for (name, graph), assessment in zip(graphs.items(), found.engines, strict=True)
        },
    }
    print(json.dumps(report, indent=2))


def _entry(graph: TypedGraph, assessment: Assessment) -> dict[str, object]:
    parity, drop = assessment.parity, assessment.drop
    return {
        "agreement": parity.agreement,
        "error": parity.error,
        "sqnr_db": parity.sqnr,
        "miou": None if assessment.confusion is None else float(mean_iou(assessment.confusion.sum(0))),
        "miou_drop": None if drop is None else [drop.points, drop.low, drop.high],
        "bytes": len(graph.data),
        "notes": graph.notes,
    }


if __name__ == "__main__":
    main()
