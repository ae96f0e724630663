"""`sensitivity`: what INT8 costs and saves in each layer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.checks import OPENVINO, check_openvino
from fcn_deploy.engines.config import DEFAULT_METHOD, Base, BuildConfig, TargetCpu, default_target
from fcn_deploy.errors import UsageError
from fcn_deploy.files import StrPath, write_bytes, write_json
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.reporting.plots import FORMATS, sensitivity_plot
from fcn_deploy.runtime.options import check_threads
from fcn_deploy.workflows.calibrating import load_ranges
from fcn_deploy.workflows.image_sizes import check_image_sizes
from fcn_deploy.workflows.models import check_model, exported_model
from fcn_deploy.workflows.parameters import check_distinct, image_folder, output_file

if TYPE_CHECKING:
    from fcn_deploy.artifacts.sensitivity import Sensitivity
    from fcn_deploy.graph.model import ExportedModel

_log = logging.getLogger(__name__)


def sensitivity(
    model: StrPath | ExportedModel,
    *,
    ranges: StrPath | Ranges,
    data: StrPath | ImageFolder,
    max_images: int = 8,
    recursive: bool = False,
    backend: Literal["onnxruntime", "openvino", "tensorrt"] = "onnxruntime",
    base: Base | None = None,
    calib_method: str | None = None,
    target_cpu: TargetCpu | None = None,
    plot: StrPath | None = None,
    output: StrPath | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measures what INT8 costs and saves in each layer of an exported model.

    Each layer is measured twice: as the only INT8 layer, and as the only float one of the engine's INT8 layers.

    Args:
        model: An exported ONNX file, or one that is loaded.
        ranges: What `calibrate` found for this model.
        data: Folder of images that calibration has not observed.
        max_images: At most so many, evenly spread over the folder.
        recursive: Whether sub-folders of the folder are searched too.
        backend: Whose graph is examined, and in whose kernels the layers are timed. TensorRT's graph is simulated, and
            what its layers save is in MACs instead of time. What OpenVINO's cost is computed by ONNX Runtime.
        base: TensorRT: precision of what is not INT8; `fp16` if None.
        calib_method: How ranges are chosen; `mse` if None.
        target_cpu: As for `build_engine`.
        plot: A file for a drawing of it: `.svg`, `.png` or `.pdf`.
        output: A file for it as JSON.
        threads: CPU threads; ONNX Runtime's default if None.
        progress: Told of each layer.

    Raises:
        DependencyError: The layers are to be timed in OpenVINO, which is not installed.
        InputError: A file cannot be read or written, or the ranges are of another model.
        UsageError: Options do not go together.
    """
    if base is not None and backend != "tensorrt":
        raise UsageError("a base precision is TensorRT's", got=f'`base="{base}"`', fix="leave it out")
    if target_cpu not in (None, "generic") and backend == "tensorrt":
        got = f'`target_cpu="{target_cpu}"`'
        raise UsageError("a target CPU is for an engine that runs on one", got=got, fix="leave it out")
    drawing = output_file(plot, FORMATS, reads=(model, ranges))
    written = output_file(output, (), reads=(model, ranges))
    if drawing is not None and written is not None:
        check_distinct(drawing, written)
    check_threads(threads)
    check_model(model)
    target = target_cpu or default_target(backend, "int8")
    config = BuildConfig("int8", "tensor", calib_method or DEFAULT_METHOD, target)
    if backend == OPENVINO:
        check_openvino(config, None)
    observed = ranges if isinstance(ranges, Ranges) else load_ranges(ranges)
    if observed.data.random:
        _log.warning("the ranges were observed on noise, not on images")
    folder = image_folder(data, max_images=max_images, recursive=recursive)
    # After all that can be wrong at once: they take a second.
    from fcn_deploy.mixed_precision.candidates import Candidates
    from fcn_deploy.mixed_precision.damage import measure_sensitivity

    net = exported_model(model)
    check_image_sizes(folder, net.spec.min_size)
    images = list(folder)
    candidates = Candidates(net, observed, config, backend, base or "fp16")
    found = measure_sensitivity(candidates, images, threads=threads, progress=progress or Silent())
    if written is not None:
        write_json(written, found.to_json())
    if drawing is not None:
        write_bytes(drawing, sensitivity_plot(found, Path(drawing).suffix))
    return found
