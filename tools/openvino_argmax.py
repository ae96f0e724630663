"""Times how logits may lie when OpenVINO finds their labels: the table of docs/openvino.md.

    python tools/openvino_argmax.py out/FastScnn.onnx out/EspNet.onnx --calib-data out/judged/calibration/images

For each exported net and each precision, engines that differ in nothing but the layout of the logits before ArgMax run
in turn on the same image. What is taken is the CPU time of all threads of the process, the least of all runs, which
other work on the machine disturbs little. The columns are the layouts of `fcn_deploy.passes.image_io.LabelOutput`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.options.types import PATH, ShapeType
from fcn_deploy.graph.model import ExportedModel, load_exported, parse, serialize
from fcn_deploy.mixed_precision.kernel_tuning import noise
from fcn_deploy.passes.image_io import ImageInput, LabelOutput, LogitsLayout
from fcn_deploy.passes.rewrite import Lowering
from fcn_deploy.runtime.cpu import has_bf16
from fcn_deploy.runtime.openvino.backend import OpenVinoBackend
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.calibrating import calibrate

LAYOUTS: tuple[LogitsLayout, ...] = get_args(LogitsLayout)
_PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "FP32": {"precision": "fp32"},
    "BF16": {"precision": "bf16"},
    "INT8": {"precision": "int8"},
    "INT8 over BF16": {"precision": "int8", "base": "bf16"},
}


@click.command()
@click.argument("models", type=PATH, nargs=-1, required=True)
@click.option("--calib-data", type=PATH, required=True, help="Images to calibrate with.")
@click.option("--shape", type=ShapeType(), default="512x512", show_default=True, help="Of the image, HxW.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--runs", type=click.IntRange(1), default=40, show_default=True)
def main(models: tuple[Path, ...], calib_data: Path, shape: ImageShape, threads: int, runs: int) -> None:
    """Prints CPU milliseconds of MODELS at each layout as a Markdown table."""
    click.echo(f"| {shape}, {threads} threads, CPU ms | | {' | '.join(f'`{layout}`' for layout in LAYOUTS)} |")
    click.echo("|---|---|" + "---|" * len(LAYOUTS))
    for path in models:
        model = load_exported(path)
        ranges = calibrate(model, calib_data)
        for name, asked in _PRECISIONS.items():
            if "BF16" in name and not has_bf16():
                click.echo(f"| {path.stem} | {name} | not measured: this CPU has no BF16 |" + " |" * (len(LAYOUTS) - 1))
                continue
            times = time_layouts(model, ranges, noise(shape), asked, threads, runs)
            click.echo(f"| {path.stem} | {name} | {' | '.join(f'{times[layout]:.1f}' for layout in LAYOUTS)} |")


def time_layouts(
    model: ExportedModel,
    ranges: Ranges,
    images: NDArray[np.uint8],
    asked: Mapping[str, Any],
    threads: int,
    runs: int,
) -> dict[LogitsLayout, float]:
    """Returns the least CPU milliseconds of an engine, from images to labels, by the layout of its logits.

    Args:
        model: As `export` writes it.
        ranges: Of the model, for INT8.
        images: uint8 [N, H, W, 3], RGB.
        asked: Precision and base, for `build_engine`.
        threads: CPU threads.
        runs: How many of each count, after one that does not.

    Raises:
        ClickException: Labels depend on the layout.
    """
    calibrated = {"ranges": ranges} if asked["precision"] == "int8" else {}
    engine = build_engine(model, backend="openvino", io="tensor", **asked, **calibrated)
    with ExitStack() as stack:
        backends = {
            layout: stack.enter_context(OpenVinoBackend(_with_labels(engine.data, model, layout), threads=threads))
            for layout in LAYOUTS
        }
        found = [backend.infer({"image": images})["labels"] for backend in backends.values()]
        if any(not np.array_equal(found[0], labels) for labels in found[1:]):
            raise click.ClickException(f"{asked}: labels depend on the layout of the logits")
        times: dict[LogitsLayout, list[float]] = {layout: [] for layout in LAYOUTS}
        for _ in range(runs):
            for layout, backend in backends.items():
                times[layout].append(_cpu_ms(lambda ran=backend: ran.infer({"image": images})))  # type: ignore[misc]
    return {layout: min(each) for layout, each in times.items()}


def _with_labels(data: bytes, model: ExportedModel, layout: LogitsLayout) -> bytes:
    spec = model.spec
    lowering = Lowering(ImageInput(spec.normalization), LabelOutput(spec.threshold, layout=layout))
    return serialize(lowering(parse(data)).model)


def _cpu_ms(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return 1000 * (time.process_time() - begin)


if __name__ == "__main__":
    main()
