"""`fcn-deploy simplify`."""

from __future__ import annotations

from pathlib import Path

import click

from fcn_deploy.cli.console import print_json, say
from fcn_deploy.cli.options.groups import json_option, output_option
from fcn_deploy.cli.options.types import PATH
from fcn_deploy.cli.progress import TerminalProgress


@click.command("simplify", short_help="Run onnxsim, checked.")
@click.argument("model", type=PATH)
@output_option
@json_option
def command(model: Path, output: Path, as_json: bool) -> None:
    """Simplify an exported MODEL with onnxsim, and check that it gives the same results."""
    from fcn_deploy.workflows.exporting import simplify
    from fcn_deploy.workflows.models import exported_model
    from fcn_deploy.workflows.parameters import output_file

    output_file(output, (".onnx",), reads=(model,))  # before the model is read
    original = exported_model(model)
    with TerminalProgress() as progress:
        simplified = simplify(original, output=output, progress=progress)
    before, after = len(original.graph), len(simplified.graph)
    if as_json:
        print_json({"file": str(output), "nodes_before": before, "nodes_after": after})
    else:
        say(f"wrote {output}: {after} nodes of {before}")
