"""`fcn-deploy inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from fcn_deploy.cli.console import print_json, print_table
from fcn_deploy.cli.options import PATH, json_option


@click.command("inspect", short_help="Say what a file is.")
@click.argument("file", type=PATH)
@json_option
def command(file: Path, as_json: bool) -> None:
    """Say what a FILE is: a checkpoint, an exported model, an engine, ranges, a sidecar or a summary.

    --json has all of it, down to each tensor.
    """
    from fcn_deploy.report.inspection import brief, inspect

    facts = inspect(file)
    if as_json:
        print_json(facts)
        return
    from fcn_deploy.report.tables import facts_table

    print_table(facts_table(str(file), brief(facts)))
