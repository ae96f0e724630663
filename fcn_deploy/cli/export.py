"""`fcn-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.console import TerminalProgress, print_json
from fcn_deploy.cli.options import PATH, ShapeType, json_option, model_options, output_option, spec_from, spec_options


@click.command("export", short_help="Checkpoint to ONNX, checked.")
@click.option("--weights", type=PATH, required=True, help="Checkpoint: .pth or .safetensors.")
@click.option("--variant", type=click.Choice(["fcn32s", "fcn16s", "fcn8s"]), help="What the checkpoint must be.")
@model_options
@spec_options
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX operator set, 18 to 23.")
@click.option("--shape", type=ShapeType(), help="Fix batch, height and width.  [default: all dynamic]")
@click.option("--no-simplify", is_flag=True, help="Leave out onnxsim.")
@output_option
@json_option
def command(
    weights: Path,
    variant: str | None,
    opset: int,
    shape: ImageShape | None,
    no_simplify: bool,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Export a checkpoint to ONNX with dynamic batch, height and width.

    The result is compared with PyTorch at several sizes before the file appears. --model exports a net of your own:
    it runs your code, which must make a torch.nn.Module that takes images [N, 3, H, W] and gives logits [N, C, H, W].
    """
    from fcn_deploy.files import sha256_file

    progress = TerminalProgress()
    with progress.working("loading PyTorch"):
        from fcn_deploy.onnx_export.tracing import ExportConfig
        from fcn_deploy.workflows import steps

    error = steps.export(
        weights,
        output,
        variant=variant,
        options=spec_from(options),
        config=ExportConfig(opset, shape),
        simplified=not no_simplify,
        progress=progress,
    )
    if as_json:
        print_json({"file": str(output), "sha256": sha256_file(output), "error": error})
    else:
        click.echo(f"wrote {output}; largest error against PyTorch: {error:.1e} of the logits' range")
