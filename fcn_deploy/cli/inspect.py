"""`fcn-deploy inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.console import print_json, print_table
from fcn_deploy.cli.options.groups import json_option
from fcn_deploy.cli.options.types import PATH, ShapeType


@click.command("inspect", short_help="Say what a file is.")
@click.argument("file", type=PATH)
@click.option(
    "--shape",
    type=ShapeType(),
    help="Of the images that a model's outputs and MACs are stated for.  [default: the model's own, or 1x512x512]",
)
@json_option
def command(file: Path, shape: ImageShape | None, as_json: bool) -> None:
    """Say what a FILE is: a checkpoint, an exported model, an engine, ranges, a sidecar or a summary.

    Of a model and an ONNX engine each layer: weights, output, parameters, multiplications (MACs) and precision; of a
    TensorRT engine the precision asked of each layer and achieved; of a checkpoint and of ranges each tensor. --json
    has all of it.
    """
    from fcn_deploy.workflows.inspecting import inspect

    facts = inspect(file, shape=shape)
    if as_json:
        print_json(facts)
        return
    from fcn_deploy.reporting.facts import brief, detail_table, facts_table

    print_table(facts_table(str(file), brief(facts)))
    details = detail_table(facts)
    if details is not None:
        click.echo()
        print_table(details)
