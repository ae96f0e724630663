"""`fcn-deploy export`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.console import print_json, say
from fcn_deploy.cli.options.groups import (
    ignore_index_option,
    json_option,
    model_options,
    output_option,
    spec_options,
    variant_option,
    weights_options,
)
from fcn_deploy.cli.options.types import PATH, ShapeType
from fcn_deploy.cli.progress import TerminalProgress


@click.command("export", short_help="Checkpoint to ONNX, checked.")
@click.option("--weights", type=PATH, required=True, help="Checkpoint: .pth or .safetensors.")
@variant_option
@model_options
@weights_options
@spec_options
@ignore_index_option
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set, 18 to 23.")
@click.option("--shape", type=ShapeType(), help="Fix batch, height and width.  [default: all dynamic]")
@click.option("--no-simplify", "simplify", flag_value=False, default=True, help="Do not run onnxsim.")
@output_option
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Export a checkpoint to ONNX with dynamic batch, height and width.

    The result is compared with PyTorch at several sizes before the file is written. --model exports a custom net: it
    runs your code, which must make a torch.nn.Module that takes images [N, 3, H, W] and gives logits [N, C, H, W].
    """
    from fcn_deploy.workflows.exporting import export

    with TerminalProgress() as progress:
        model = export(**options, progress=progress)
    if as_json:
        print_json({"file": str(options["output"]), "sha256": model.sha256, "error": model.error})
    else:
        say(f"wrote {options['output']}; largest error against PyTorch: {model.error:.1e} of the logits' range")
        if model.spec.threshold is not None:
            say(f"a binary net, with one output channel: label 1 where its value is above {model.spec.threshold:g}")
