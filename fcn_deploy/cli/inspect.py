"""`fcn-deploy inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.console import print_json, print_table, say
from fcn_deploy.cli.options.groups import json_option
from fcn_deploy.cli.options.types import PATH, ShapeType


@click.command("inspect", short_help="Say what a file is.")
@click.argument("file", type=PATH)
@click.option(
    "--shape",
    type=ShapeType(),
    help="Shape of the images for which a model's outputs and MACs are computed.  [default: the model's own, or "
    "1x512x512]",
)
@json_option
def command(file: Path, shape: ImageShape | None, as_json: bool) -> None:
    """Say what a FILE is: a checkpoint, an exported model, an engine, ranges, a sidecar, a summary or a bundle.

    Lists each layer of a model or an ONNX engine: weights, output, parameters, multiplications (MACs) and precision.
    For a TensorRT engine it lists the precision asked for and achieved, by layer, and the kernels: what each reads,
    writes and moves, and what is fused into it. For a checkpoint or ranges it lists each tensor; for a summary it
    prints the table that deploy printed. --json prints all of it.
    """
    from fcn_deploy.workflows.inspecting import inspect

    facts = inspect(file, shape=shape)
    if as_json:
        print_json(facts)
        return
    from fcn_deploy.reporting.facts import brief, detail_table, facts_table

    details = detail_table(facts)
    if facts["kind"] == "summary":  # as `deploy` printed it
        print_table(details)
        return
    print_table(facts_table(str(file), brief(facts)))
    if details is not None:
        say("")
        print_table(details)
    if "plan" in facts:
        from fcn_deploy.reporting.plan_table import plan_table

        say("")
        print_table(plan_table(facts["plan"]))
