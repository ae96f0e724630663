"""`fcn-deploy build-engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fcn_deploy.cli.console import TerminalProgress, print_json
from fcn_deploy.cli.options import PATH, calibration_options, json_option, output_option, threads_option


@click.command("build-engine", short_help="ONNX to engine and sidecar.")
@click.argument("model", type=PATH)
@click.option("--fp32", "precisions", flag_value="fp32", multiple=True, help="All layers in FP32 (the default).")
@click.option("--fp16", "precisions", flag_value="fp16", multiple=True, help="Not for ONNX Runtime's CPU.")
@click.option("--int8", "precisions", flag_value="int8", multiple=True, help="Needs --calib-data or --ranges.")
@click.option("--calib-data", type=PATH, metavar="DIR", help="Calibrate on these images first.")
@click.option("--ranges", type=PATH, metavar="FILE", help="What calibrate wrote for this model.")
@click.option("--calib-method", help="How ranges are chosen: minmax, percentile.  [default: minmax]")
@calibration_options
@click.option("--backend", type=click.Choice(["auto", "onnxruntime"]), default="auto", show_default=True)
@click.option(
    "--io",
    type=click.Choice(["image", "tensor"]),
    default="image",
    show_default=True,
    help="image: uint8 images in, labels out. tensor: float image in, logits out.",
)
@click.option(
    "--target-cpu",
    type=click.Choice(["generic", "vnni", "native"]),
    default="generic",
    show_default=True,
    help="Where the engine will run. generic is right everywhere; vnni keeps all 8 bits of the weights.",
)
@threads_option
@output_option
@json_option
def command(
    model: Path,
    precisions: tuple[str, ...],
    calib_data: Path | None,
    ranges: Path | None,
    calib_method: str | None,
    calib_size: tuple[int, int] | None,
    max_images: int | None,
    backend: str,
    io: Any,
    target_cpu: Any,
    threads: int | None,
    output: Path,
    as_json: bool,
) -> None:
    """Build an engine and its sidecar from an exported MODEL."""
    from fcn_deploy import steps
    from fcn_deploy.build import BuildConfig
    from fcn_deploy.data import ImageFolder
    from fcn_deploy.errors import UsageError
    from fcn_deploy.files import check_writable

    if len(set(precisions)) > 1:
        raise UsageError("more than one precision", got=" ".join(f"--{p}" for p in precisions), expected="one")
    precision: Any = precisions[0] if precisions else "fp32"
    if precision != "int8" and (calib_data or ranges or calib_method or calib_size or max_images):
        raise UsageError("calibration is for INT8", got=f"--{precision}", fix="add --int8, or leave it out")
    if ranges and (calib_size or max_images):
        raise UsageError(
            "a ranges file is taken as it is", got="--calib-size or --max-images with --ranges", fix="leave them out"
        )
    if precision == "int8" and (calib_data is None) == (ranges is None):
        raise UsageError(
            "INT8 needs to know what the tensors hold",
            got="both" if ranges else "neither",
            expected="--calib-data DIR or --ranges FILE",
        )
    config = BuildConfig(precision, io, calib_method or "minmax", target_cpu)
    progress = TerminalProgress()
    steps.choose_backend(backend, output, progress)
    steps.check_distinct(output, model)
    check_writable(output)
    source: Any = ranges
    if calib_data is not None:
        images = ImageFolder.open(calib_data, max_images=max_images, size=calib_size)
        source = steps.calibrate(model, images, threads=threads, progress=progress)
    sidecar = steps.build(model, config, source).save(output)
    if as_json:
        print_json(sidecar.to_json())
        return
    layers = list(sidecar.precision.layers.values())
    click.echo(
        f"wrote {output}, {sidecar.engine.bytes / 1e6:.1f} MB: {layers.count('int8')} of {len(layers)} layers in INT8; "
        "not verified yet: fcn-deploy verify"
    )
