"""Quantises an exported model by ONNX Runtime's quantize_static or by this project, and says what that took.

    python tools/quantizers.py ort fcn8s.onnx --calib-data DIR --method entropy -o ort.onnx
    python tools/quantizers.py ours fcn8s.onnx --calib-data DIR --method entropy -o ours.onnx

ONNX Runtime's runs with its defaults (QDQ, int8 activations and weights, per tensor, every operator it can) behind its
own pre-processing. One process each, so that the peak of memory is that of the quantiser.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.runtime.image import normalize
from fcn_deploy.workflows.building import build_engine

_MEBIBYTE = 2**20


@click.command()
@click.argument("quantizer", type=click.Choice(["ort", "ours"]))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--calib-data", type=click.Path(path_type=Path), required=True)
@click.option("--method", default="minmax", show_default=True, help="minmax, percentile or entropy.")
@click.option("--max-images", type=int)
@click.option("--size", help="HxW to resize images to.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    quantizer: str,
    model: Path,
    calib_data: Path,
    method: str,
    max_images: int | None,
    size: str | None,
    output: Path,
) -> None:
    """Quantises MODEL and prints seconds and peak memory as JSON."""
    height_width = tuple(int(number) for number in size.split("x")) if size else None
    images = ImageFolder.open(calib_data, max_images=max_images, size=height_width)  # type: ignore[arg-type]
    begin = time.perf_counter()
    if quantizer == "ours":
        build_engine(model, precision="int8", io="tensor", calib_method=method, calib_data=images, output=output)
    else:
        quantize_static(model, images, method, output)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    click.echo(
        json.dumps(
            {
                "quantizer": quantizer,
                "method": method,
                "images": len(images),
                "seconds": seconds,
                "peak_mib": peak / _MEBIBYTE,
            }
        )
    )


def quantize_static(model: Path, images: ImageFolder, method: str, output: Path, *, per_channel: bool = False) -> None:
    """Quantises by ONNX Runtime, with its defaults but for what is given, behind its own pre-processing.

    Args:
        model: An exported model.
        images: To calibrate with.
        method: `minmax`, `percentile` or `entropy`.
        output: The ONNX file to write.
        per_channel: Whether weights have a scale for each output channel.
    """
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    normalization = exported_spec(parse(model.read_bytes())).normalization

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = ({"image": normalize(image[np.newaxis], normalization)} for image in images)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    methods = {
        "minmax": ort.CalibrationMethod.MinMax,
        "percentile": ort.CalibrationMethod.Percentile,
        "entropy": ort.CalibrationMethod.Entropy,
    }
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        ort.quantize_static(
            str(prepared), str(output), Reader(), calibrate_method=methods[method], per_channel=per_channel
        )


if __name__ == "__main__":
    main()
