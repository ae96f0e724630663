"""`fcn-deploy benchmark`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.console import print_json, print_table, say
from fcn_deploy.cli.options.groups import (
    benchmark_options,
    gpu_options,
    json_option,
    model_options,
    threads_option,
    weights_options,
)
from fcn_deploy.cli.options.types import NAME, ShapeType
from fcn_deploy.cli.progress import TerminalProgress


@click.command("benchmark", short_help="Latency, in turn, as ratios.")
@click.argument("engines", type=NAME, nargs=-1, required=True, metavar="ENGINE...")
@click.option("--shape", type=ShapeType(), required=True, help="Shape of the batch of images.")
@click.option("--vs", type=NAME, metavar="REF", help="What to compare with: an engine or model, or pytorch:CHECKPOINT.")
@model_options
@weights_options
@threads_option
@gpu_options
@benchmark_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Measure the latency of engines from uint8 image to labels.

    All run in turn, round by round, so that a noisy machine gives none an advantage. Ratios are taken within each
    round, against --vs, or else the first engine. ENGINE may also be an exported model or pytorch:CHECKPOINT. If there
    are an INT8 and a float engine of one model and library, a sentence says which is faster. Threads, load and
    CPU are printed too, with a warning if the machine is busy or --threads is more than the cores that this process may
    use.
    """
    from fcn_deploy.workflows.benchmarking import benchmark

    with TerminalProgress() as progress:
        found = benchmark(**options, progress=progress)
    if as_json:
        print_json(found.to_json())
        return
    from fcn_deploy.reporting.tables import benchmark_table

    names = [timing.name for timing in found.timings]
    print_table(benchmark_table(found.timings, names, found.shape.batch, found.percentiles, found.conditions))
    for pair in found.siblings:
        say(pair)
