"""`fcn-deploy report`."""

from __future__ import annotations

from pathlib import Path

import click

from fcn_deploy.cli.console import print_json, say
from fcn_deploy.cli.options.groups import json_option
from fcn_deploy.cli.options.types import PATH


@click.command("report", short_help="A deployment as one HTML page.")
@click.argument("summary", type=PATH, metavar="OUT|summary.json")
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="The HTML file.  [default: report.html, beside summary.json]"
)
@json_option
def command(summary: Path, output: Path | None, as_json: bool) -> None:
    """Write the report of a deployment: one HTML file, which needs no network and no script.

    Takes the folder that deploy or finish wrote, or the summary.json in it. Shows whether to ship, and why; warnings;
    the engines; IoU by class; the images on which the engine agrees the least with PyTorch; layers, ranges and
    sensitivity; and what was deployed from what. deploy writes it by itself. PyTorch is not needed.
    """
    from fcn_deploy.workflows.reporting import report

    written = report(summary, output=output)
    if as_json:
        print_json({"report": str(written)})
        return
    say(f"wrote {written}")
