"""`fcn-deploy sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fcn_deploy.cli.console import TerminalProgress, print_json, print_table
from fcn_deploy.cli.options import PATH, json_option, threads_option


@click.command("sensitivity", short_help="What each layer costs in INT8, and saves.")
@click.argument("model", type=PATH)
@click.option("--ranges", type=PATH, metavar="FILE", required=True, help="What calibrate wrote for this model.")
@click.option("--data", type=PATH, metavar="DIR", required=True, help="Images that calibration has not observed.")
@click.option(
    "--max-images", type=click.IntRange(1), default=8, show_default=True, help="Evenly spread over the folder."
)
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="Whose graph is looked at; TensorRT's is simulated, and costs MACs instead of time.",
)
@click.option("--base", type=click.Choice(["fp16", "fp32"]), help="Of TensorRT's graph.  [default: fp16]")
@click.option(
    "--calib-method",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    help="How ranges are chosen.  [default: mse]",
)
@click.option("--target-cpu", type=click.Choice(["generic", "vnni", "native"]), default="generic", show_default=True)
@click.option("--plot", type=PATH, metavar="FILE", help="Draw it: a name that ends in .svg, .png or .pdf.")
@click.option("-o", "--output", type=PATH, help="Write it as JSON.")
@threads_option
@json_option
def command(
    model: Path,
    ranges: Path,
    data: Path,
    max_images: int,
    backend: Any,
    base: Any,
    calib_method: str | None,
    target_cpu: Any,
    plot: Path | None,
    output: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure what INT8 costs and saves in each layer of an exported MODEL.

    Each layer is INT8 alone, and then the only one of the engine's INT8 layers that is float.
    """
    from fcn_deploy.artifacts.ranges import OBSERVED_ON_NOISE, Ranges
    from fcn_deploy.data.folders import ImageFolder
    from fcn_deploy.engines.config import DEFAULT_METHOD, BuildConfig
    from fcn_deploy.errors import UsageError
    from fcn_deploy.files import check_writable, write_bytes, write_json
    from fcn_deploy.graph.model import load_exported
    from fcn_deploy.mixed_precision.candidates import Candidates
    from fcn_deploy.mixed_precision.damage import measure_sensitivity
    from fcn_deploy.reporting.plots import FORMATS, sensitivity_plot
    from fcn_deploy.reporting.tables import sensitivity_table
    from fcn_deploy.workflows import steps

    if base is not None and backend != "tensorrt":
        raise UsageError("a base precision is TensorRT's", got=f"--base {base}", fix="leave it out")
    if target_cpu != "generic" and backend != "onnxruntime":
        raise UsageError("a target CPU is ONNX Runtime's", got=f"--target-cpu {target_cpu}", fix="leave it out")
    if plot is not None:
        steps.check_suffix(plot, *FORMATS)
    for written in (plot, output):
        if written is not None:
            steps.check_distinct(written, model, ranges)
            check_writable(written)
    if plot is not None and output is not None:
        steps.check_distinct(plot, output)
    config = BuildConfig("int8", "tensor", calib_method or DEFAULT_METHOD, target_cpu)
    observed = Ranges.load(ranges)
    if observed.data.random:
        click.echo(f"warning: {OBSERVED_ON_NOISE}", err=True)
    candidates = Candidates(load_exported(model), observed, config, backend, base or "fp16")
    images = list(ImageFolder.open(data, max_images=max_images))
    found = measure_sensitivity(candidates, images, threads=threads, progress=TerminalProgress())
    if output is not None:
        write_json(output, found.to_json())
    if plot is not None:
        write_bytes(plot, sensitivity_plot(found, plot.suffix))
    if as_json:
        print_json(found.to_json())
        return
    print_table(sensitivity_table(found))
    for path in (output, plot):
        if path is not None:
            click.echo(f"wrote {path}")
