"""`fcn-deploy adopt`."""

from __future__ import annotations

from typing import Any

import click

from fcn_deploy.cli.console import print_json, say
from fcn_deploy.cli.options.groups import (
    class_options,
    ignore_index_option,
    json_option,
    normalization_options,
    output_option,
    padding_options,
    threshold_option,
)
from fcn_deploy.cli.options.types import PATH, ShapeType
from fcn_deploy.cli.progress import TerminalProgress


@click.command("adopt", short_help="ONNX of another tool, checked.")
@click.argument("model", type=PATH)
@click.option("--image", metavar="NAME", help="The input that takes images.  [default: the only one]")
@click.option(
    "--logits",
    metavar="NAME|INDEX",
    help="The output that gives the logits, or a tensor inside, such as the one before an ArgMax.  [default: the only "
    "output, or logits or out]",
)
@click.option(
    "--layout", type=click.Choice(["nchw", "nhwc"]), help="Channels first or last, if the shapes do not tell."
)
@click.option(
    "--resize-logits",
    type=click.Choice(["bilinear", "nearest"]),
    help="Resize coarse logits to the size of the image, in the graph.",
)
@padding_options
@class_options
@ignore_index_option
@normalization_options
@threshold_option
@click.option("--shape", type=ShapeType(), help="Fix the batch, height and width that the model leaves open.")
@click.option("--no-simplify", "simplify", flag_value=False, default=True, help="Do not run onnxsim.")
@output_option
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Make an exported model of MODEL, an ONNX file that another tool exported.

    It gets the names, types and layout that the other commands expect, and the classes and the normalisation that you
    state. The result is compared with the original at several sizes before the file is written.
    """
    from fcn_deploy.workflows.adopting import adopt

    with TerminalProgress() as progress:
        model = adopt(**options, progress=progress)
    if as_json:
        print_json({"file": str(options["output"]), "sha256": model.sha256, "error": model.error})
    else:
        say(f"wrote {options['output']}; largest error against the original: {model.error:.1e} of the logits' range")
        if model.spec.threshold is not None:
            say(f"a binary net, with one output channel: label 1 where its value is above {model.spec.threshold:g}")
