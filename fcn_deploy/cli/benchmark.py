"""`fcn-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.console import TerminalProgress, print_json, print_table
from fcn_deploy.cli.options import (
    ShapeType,
    benchmark_options,
    gpu_from,
    gpu_options,
    json_option,
    model_from,
    model_options,
    threads_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fcn_deploy.evaluation.latency import Timing
    from fcn_deploy.runtime import Segmenter


@click.command("benchmark", short_help="Latency, in turn, as ratios.")
@click.argument("engines", nargs=-1, required=True, metavar="ENGINE...")
@click.option("--shape", type=ShapeType(), required=True, help="Of the batch of images.")
@click.option("--vs", metavar="REF", help="What to compare with: an engine or model, or pytorch:CHECKPOINT.")
@model_options
@threads_option
@gpu_options
@benchmark_options
@json_option
def command(
    engines: tuple[str, ...],
    shape: ImageShape,
    vs: str | None,
    threads: int | None,
    warmup: float,
    duration: float,
    iterations: int,
    percentile: tuple[float, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the latency of engines from uint8 image to labels.

    All run in turn, round by round, so a noisy machine favours none. Ratios are taken within each round, against --vs,
    or the first engine. ENGINE may also be an exported model or pytorch:CHECKPOINT. Of engines of one model in INT8 and
    FP16 a sentence says which is faster.
    """
    import functools
    from contextlib import ExitStack
    from dataclasses import asdict

    import numpy as np

    from fcn_deploy.evaluation.latency import BenchmarkConfig, time_in_turn
    from fcn_deploy.reporting.siblings import find_siblings
    from fcn_deploy.reporting.tables import benchmark_table
    from fcn_deploy.workflows import references as sources

    config = BenchmarkConfig(warmup, duration, iterations, percentile)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (shape.batch, shape.height, shape.width, 3), dtype=np.uint8)
    names = list(dict.fromkeys((vs, *engines) if vs else engines))
    with ExitStack() as opened:
        segmenters = sources.open_all(names, **model_from(options), **gpu_from(options), threads=threads)
        for segmenter in segmenters.values():
            opened.enter_context(segmenter)
        _refuse_simulations(segmenters)
        contestants = {name: functools.partial(segmenters[name], images) for name in names}
        text = f"measuring {shape}, {'default' if threads is None else threads} threads"
        with TerminalProgress().measuring(text) as show:
            timings = time_in_turn(contestants, config, show)
    labels = _short_names(names)
    siblings = find_siblings({name: segmenters[name].sidecar for name in names}, timings, labels)
    if as_json:
        rows = _rows(timings, labels, shape, percentile)
        pairs = [{**asdict(pair), "faster": pair.faster, "text": str(pair)} for pair in siblings]
        print_json({"shape": str(shape), "threads": threads, "engines": rows, "int8_and_fp16": pairs})
        return
    print_table(benchmark_table(timings, labels, shape.batch, percentile))
    for pair in siblings:
        click.echo(pair)


def _refuse_simulations(segmenters: Mapping[str, Segmenter]) -> None:
    from fcn_deploy.artifacts.sidecar import SIMULATES
    from fcn_deploy.errors import UsageError

    for name, segmenter in segmenters.items():
        if segmenter.sidecar is not None and SIMULATES in segmenter.sidecar.target:
            raise UsageError(f"{name} is a simulation: of speed it says nothing", fix="leave it out")


def _short_names(names: list[str]) -> list[str]:
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else names


def _rows(timings: list[Timing], labels: list[str], shape: ImageShape, percentile: tuple[float, ...]) -> list[Any]:
    from dataclasses import asdict

    from fcn_deploy.evaluation.latency import ratio

    return [
        {
            "name": label,
            "rounds": len(timing.latencies),
            "median_ms": timing.median,
            "min_ms": float(timing.latencies.min()),
            "percentiles_ms": {f"{share:g}": timing.percentile(share) for share in percentile},
            "images_per_second": timing.throughput(shape.batch),
            "ratio": asdict(ratio(timing, timings[0])),
        }
        for timing, label in zip(timings, labels, strict=True)
    ]
