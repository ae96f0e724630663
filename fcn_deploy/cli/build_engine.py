"""`fcn-deploy build-engine`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fcn_deploy.cli.console import print_json, print_table, say
from fcn_deploy.cli.options.groups import (
    calibration_options,
    io_option,
    json_option,
    method_option,
    output_option,
    search_options,
    target_cpu_option,
    tensorrt_options,
    threads_option,
)
from fcn_deploy.cli.options.types import FOLDER, PATH, SizeType
from fcn_deploy.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from fcn_deploy.artifacts.sidecar import Sidecar


@click.command("build-engine", short_help="ONNX to engine and sidecar.")
@click.argument("model", type=PATH)
@click.option("--fp32", "precision", flag_value="fp32", multiple=True, help="All layers in FP32 (the default).")
@click.option("--fp16", "precision", flag_value="fp16", multiple=True, help="TensorRT only; audited with --ranges.")
@click.option(
    "--bf16", "precision", flag_value="bf16", multiple=True, help="openvino and TensorRT; needs no calibration."
)
@click.option(
    "--int8", "precision", flag_value="int8", multiple=True, help="Needs --calib-data, --ranges, or Q/DQ in MODEL."
)
@click.option(
    "--fp8", "precision", flag_value="fp8", multiple=True, help="TensorRT only; needs --calib-data or --ranges."
)
@click.option("--calib-data", type=FOLDER, metavar="DIR", help="Calibrate on these images first.")
@click.option("--ranges", type=PATH, metavar="FILE", help="What calibrate wrote for this model.")
@method_option
@calibration_options
@click.option(
    "--no-bias-correction",
    "bias_correction",
    flag_value=False,
    default=True,
    help="INT8, FP8: do not correct biases for the rounding of the weights.",
)
@click.option(
    "--weight-rounding",
    type=click.Choice(["nearest", "correlated"]),
    help="INT8: to the nearest integer, or correlated, so that errors cancel if the input is smooth.  [default: "
    "correlated for onnxruntime and openvino, nearest for TensorRT, whose weights are finer]",
)
@click.option(
    "--no-winograd",
    "winograd",
    flag_value=False,
    default=True,
    help="onnxruntime: do not use Winograd's algorithm in float 3x3 layers of many channels; takes less memory.",
)
@click.option(
    "--tune",
    type=SizeType(),
    help="Choose by measured time, on this machine and for images of this size. onnxruntime: which layers use "
    "Winograd's algorithm and, with --int8, which are INT8. With --backend auto also the library: each that is "
    "installed builds an engine, and the fastest is taken.",
)
@click.option(
    "--spec-from",
    type=PATH,
    metavar="MODEL",
    help="The exported model from which another tool made MODEL, if that tool left out the spec.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "simulation"]),
    default="auto",
    show_default=True,
    help="auto: onnxruntime for .onnx, unless --tune finds another faster; for .engine or .plan tensorrt if it is "
    "installed and there is a GPU, else tensorrt-rtx. openvino: an .onnx for Intel's library. simulation: an .onnx "
    "that computes on a CPU what TensorRT's graph gives, for verify and evaluate.",
)
@click.option(
    "--simulate",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    default="tensorrt",
    show_default=True,
    help="Whose graph --backend simulation computes; they differ in INT8.",
)
@io_option
@target_cpu_option
@search_options
@tensorrt_options
@click.option("--twin", is_flag=True, help="TensorRT: build an FP16 engine beside the INT8 one, NAME.fp16.engine.")
@click.option("--log", type=PATH, metavar="FILE", help="TensorRT: write everything that the library says.")
@threads_option
@output_option
@json_option
def command(precision: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Build an engine and its sidecar from an exported MODEL.

    A prequantized MODEL, with Q/DQ from training or another tool, is built with --int8 as it is, with its own scales.

    Options from --min-shape to --log are for TensorRT engines, but for --base.
    """
    from fcn_deploy.errors import UsageError
    from fcn_deploy.workflows.building import build_engine

    asked: Any = tuple(dict.fromkeys(precision)) or ("fp32",)
    if len(asked) > 1:
        raise UsageError("more than one precision", got=" ".join(f"--{each}" for each in asked), expected="one")
    with TerminalProgress() as progress:
        engine = build_engine(**options, precision=asked[0], progress=progress)
    built = [engine, *([engine.twin] if engine.twin else [])]
    if as_json:
        twin = {"twin": engine.twin.sidecar.to_json()} if engine.twin else {}
        print_json({**engine.sidecar.to_json(), **twin})
        return
    if engine.sidecar.tuning is not None:
        from fcn_deploy.reporting.tables import tuning_table

        print_table(tuning_table(engine.sidecar.tuning))
    for each in built:
        say(_describe(options["output"].with_name(each.sidecar.engine.file), each.sidecar))


def _describe(output: Path, sidecar: Sidecar) -> str:
    precision = sidecar.precision
    achieved = precision.achieved_layers or {}
    counts = Counter(achieved.get(name) or asked for name, asked in precision.layers.items())
    layers = ", ".join(
        f"{counts[kind]} in {kind.upper()}"
        for kind in ("int8", "fp8", "fp16", "bf16", "fp32")
        if counts[kind] or kind not in ("fp8", "bf16")
    )
    return (
        f"wrote {output}, {sidecar.engine.bytes / 1e6:.1f} MB: of {counts.total()} layers {layers}; "
        "not verified yet: fcn-deploy verify"
    )
