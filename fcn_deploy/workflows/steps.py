"""The steps of a deployment, one function each: what a command does alone and `pipeline.deploy` strings together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.calibration.observer import observe
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.engine import BuildConfig, Engine
from fcn_deploy.engines.onnxruntime import build_onnxruntime, check_onnxruntime
from fcn_deploy.engines.simulation import SIMULATION, build_simulation
from fcn_deploy.engines.tensorrt.builder import TensorRTConfig, build_tensorrt, check_tensorrt
from fcn_deploy.errors import ArtifactError, DependencyError, GateError, InputError, UsageError
from fcn_deploy.evaluation.gates import THRESHOLDS
from fcn_deploy.evaluation.parity import compare_backends
from fcn_deploy.files import check_writable, read_bytes, write_bytes
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.onnx_export.simplifier import simplify
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.quantization.prequantized import is_prequantized
from fcn_deploy.runtime import Backend
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.flavor import BUILDERS, Flavor, find_flavor

if TYPE_CHECKING:
    from fcn_deploy.models.spec_options import SpecOptions
    from fcn_deploy.onnx_export.guards import Assumption
    from fcn_deploy.onnx_export.tracing import ExportConfig

# Sizes at which a graph is compared: the smallest, odd ones, both orders of height and width, several batches.
_COMPARED = tuple(ImageShape(*shape) for shape in ((1, 1, 1), (1, 33, 64), (3, 65, 97), (1, 130, 75), (2, 96, 128)))
_RANDOM_IMAGES = 8
_SILENT = Silent()
_ONNX = (".onnx",)
_PLANS = (".engine", ".plan")


def export(
    weights: Path,
    output: Path,
    *,
    variant: str | None = None,
    options: SpecOptions | None = None,
    config: ExportConfig | None = None,
    simplified: bool = True,
    progress: Progress = _SILENT,
) -> float:
    """Exports a checkpoint to ONNX, compares the result with PyTorch, and only then writes it.

    Args:
        weights: `.pth` or `.safetensors`.
        output: The `.onnx` file to write.
        variant: What the checkpoint must be, or None.
        options: What the user says about it.
        config: Opset and shape.
        simplified: Whether onnxsim runs.
        progress: Told of each step.

    Returns:
        The largest relative error against PyTorch over the sizes compared.

    Raises:
        GateError: The exported model gives other results than PyTorch; nothing is written.
        InputError: The checkpoint cannot be read or exported, or the output cannot be written.
    """
    # Torch is for this step alone: a machine that builds engines of an exported model need not have it.
    from fcn_deploy.models.backend import TorchBackend
    from fcn_deploy.models.load import load_net
    from fcn_deploy.onnx_export.tracing import TRACED, ExportConfig, export_onnx

    check_suffix(output, ".onnx")
    check_writable(output)
    config = config or ExportConfig()
    net = load_net(weights, options, variant=variant, shape=config.shape)
    with progress.working(f"exporting {net.spec.variant}, {net.spec.num_classes} classes"):
        proto, assumptions = export_onnx(net.module, net.spec, config)
    if simplified:
        with progress.working("simplifying"):
            proto = simplify(proto)
    data = proto.SerializeToString()
    del proto  # holds the weights once more
    reference = TorchBackend(net.module, net.spec.num_classes)
    candidate = OnnxRuntimeBackend(data)
    if assumptions:
        _compare(reference, candidate, (TRACED,), "PyTorch", _SILENT)  # or else an assumption would be blamed for all
    for assumption in assumptions:
        _require_harmless(assumption, reference, candidate)
    error = _compare(reference, candidate, (config.shape,) if config.shape else _COMPARED, "PyTorch", progress)
    write_bytes(output, data)
    return error


def _require_harmless(assumption: Assumption, reference: Backend, candidate: Backend) -> None:
    """Runs a model at a size that violates what torch assumed: it has to give PyTorch's results all the same."""
    got = "a condition that cannot be evaluated"
    if assumption.violated_by is not None:
        try:
            _compare(reference, candidate, [assumption.violated_by], "PyTorch", _SILENT)
        except (GateError, ArtifactError) as error:
            got = f"{error.what} at {assumption.violated_by}: {error.got}"
        else:
            return
    raise InputError(
        f"the export holds only while {assumption.guard}",
        got=got,
        expected="a net that does the same at every size",
        fix="take conditions on the size, sizes made ints or floats, and adaptive pooling to more than one cell out of "
        "the net; or export for one size with --shape",
    )


def simplify_file(source: Path, output: Path, progress: Progress = _SILENT) -> tuple[int, int]:
    """Simplifies an exported model, compares the result with the original, and only then writes it.

    Returns:
        The numbers of nodes before and after.

    Raises:
        GateError: The simplified model gives other results; nothing is written.
        InputError: It is not an exported model, onnxsim failed, or the output cannot be written.
    """
    import onnx

    check_suffix(output, ".onnx")
    check_writable(output)
    original = read_bytes(source)
    exported_spec(parse(original, str(source)), str(source))
    before = onnx.load_model_from_string(original)
    with progress.working(f"simplifying {source.name}"):
        after = simplify(before)
    data = after.SerializeToString()
    reference = OnnxRuntimeBackend(original)
    _compare(reference, OnnxRuntimeBackend(data), _compared_shapes(reference), "the original", progress)
    write_bytes(output, data)
    return len(before.graph.node), len(after.graph.node)


def _compared_shapes(backend: Backend) -> list[ImageShape]:
    """The shapes to compare at, with what the graph fixes put in its place."""
    batch, _, height, width = (size if isinstance(size, int) else None for size in backend.inputs[0].shape)
    shapes = (ImageShape(batch or s.batch, height or s.height, width or s.width) for s in _COMPARED)
    return list(dict.fromkeys(shapes))


def _compare(
    reference: Backend, candidate: Backend, shapes: Sequence[ImageShape], name: str, progress: Progress
) -> float:
    """Runs a model beside its reference on normally distributed input; a difference is a GateError."""
    random = np.random.default_rng(0)
    feeds = (
        {"image": random.normal(size=(shape.batch, 3, shape.height, shape.width)).astype(np.float32)}
        for shape in progress.track(shapes, len(shapes), f"comparing with {name}")
    )
    try:
        error = compare_backends(reference, candidate, feeds)
    except InputError as mismatch:
        raise GateError(f"the model does not give the results of {name}", got=str(mismatch)) from mismatch
    limit = THRESHOLDS["fp32"].error
    if limit is not None and not error <= limit:
        raise GateError(
            f"the model does not give the results of {name}",
            got=f"an error of {error:.2e} of the logits' range",
            expected=f"at most {limit:.0e}",
            fix="nothing was written; try export --no-simplify, another --opset, or one --shape",
        )
    return error


def brings_scales(model: Path) -> bool:
    """Returns whether a model holds Q/DQ, so that INT8 engines are built of it as it is, without ranges.

    Raises:
        InputError: It cannot be read, or is quantised by integer operators.
    """
    return is_prequantized(parse(read_bytes(model), str(model)))


def read_spec(model: Path) -> ModelSpec:
    """Returns the spec of an exported model.

    Raises:
        InputError: It cannot be read, or is none.
    """
    return exported_spec(parse(read_bytes(model), str(model)), str(model))


def calibrate(model: Path, images: ImageFolder, *, threads: int | None = None, progress: Progress = _SILENT) -> Ranges:
    """Observes a model over a folder of images.

    Args:
        model: An exported ONNX file.
        images: The images, with the size they are resized to.
        threads: CPU threads.
        progress: Told of each image.

    Raises:
        InputError: The model or an image cannot be read, or does not fit.
    """
    data = read_bytes(model)
    return observe(data, progress.track(images, len(images), "calibrating"), size=images.size, threads=threads)


def calibrate_randomly(
    model: Path, size: tuple[int, int], count: int | None, *, threads: int | None = None, progress: Progress = _SILENT
) -> Ranges:
    """Observes a model over noise: the ranges say so, and are good for timing, not for use.

    Args:
        model: An exported ONNX file.
        size: [height, width] of the noise.
        count: How many images; 8 where None.
        threads: CPU threads.
        progress: Told of each image.

    Raises:
        InputError: The model cannot be read.
    """
    count = count or _RANDOM_IMAGES
    random = np.random.default_rng(0)
    noise: Iterator[NDArray[np.uint8]] = (random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count))
    data = read_bytes(model)
    images = progress.track(noise, count, "calibrating on noise")
    return observe(data, images, size=size, random=True, threads=threads)


def choose_backend(requested: str, output: Path, progress: Progress = _SILENT) -> str:
    """Returns the backend an engine is built for.

    Args:
        requested: `auto`, which goes by the suffix of the output, or a backend.
        output: Where the engine will be written.
        progress: Told what `auto` took, and why.

    Raises:
        DependencyError: `auto` met a suffix none of whose backends can build here.
        UsageError: The suffix does not fit the backend, or there is no such backend.
    """
    if requested in (OnnxRuntimeBackend.name, SIMULATION):
        check_suffix(output, *_ONNX)
        return requested
    if requested != "auto":
        check_suffix(output, *_PLANS)
        return find_flavor(requested).name
    check_suffix(output, *_ONNX, *_PLANS)
    if output.suffix in _ONNX:
        progress.stage(f"backend: {OnnxRuntimeBackend.name}, for {output.name} ends in {output.suffix}")
        return OnnxRuntimeBackend.name
    flavor, passed_over = _choose_flavor()
    reasons = [f"{output.name} ends in {output.suffix}", *passed_over]
    progress.stage(f"backend: {flavor.name}, for {' and '.join(reasons)}")
    return flavor.name


def _choose_flavor() -> tuple[Flavor, list[str]]:
    """The first flavor that can build here, and why those before it cannot."""
    passed_over = []
    for flavor in BUILDERS:
        try:
            flavor.check_installed()
            if not flavor.builds_without_gpu:
                find_gpus()
        except DependencyError as error:
            passed_over.append(f"{flavor.name} cannot build here ({error.what})")
        else:
            return flavor, passed_over
    raise DependencyError(
        "no TensorRT library can build an engine here",
        got="; ".join(passed_over),
        fix=" or ".join(f"pip install 'fcn-deploy[{flavor.extra}]'" for flavor in reversed(BUILDERS)),
    )


def check_suffix(path: Path, *suffixes: str) -> None:
    """Checks, before work starts, that an output is named as what it will hold.

    Raises:
        UsageError: Its name ends otherwise.
    """
    if path.suffix not in suffixes:
        expected = f"a name that ends in {' or '.join(suffixes)}"
        raise UsageError("the output's suffix does not fit", got=str(path), expected=expected)


def check_distinct(output: Path, *inputs: Path | None) -> None:
    """Checks that a command does not write over what it reads.

    Raises:
        UsageError: It would.
    """
    if any(path is not None and path.resolve() == output.resolve() for path in inputs):
        raise UsageError("the output would replace an input", got=str(output), fix="give it another name")


def check_build(
    backend: str, config: BuildConfig, options: TensorRTConfig | None = None, log: Path | None = None
) -> None:
    """Checks, before images are calibrated on, that a backend can build what is asked for on this machine.

    Args:
        backend: `onnxruntime`, a TensorRT flavor, or `simulation`.
        config: What to build.
        options: What is particular to TensorRT's builders; None for ONNX Runtime.
        log: Where a TensorRT library's words would go; None for ONNX Runtime, which has none to say.

    Raises:
        DependencyError: The backend's library is not installed, or needs a GPU and there is none.
        InputError: The log cannot be written.
        UsageError: The backend cannot do what is asked for.
    """
    if log is not None:
        check_writable(log)
    if backend not in (OnnxRuntimeBackend.name, SIMULATION):
        check_tensorrt(find_flavor(backend), config, options or TensorRTConfig())
        return
    asked = [
        field.name for field in fields(TensorRTConfig) if options and getattr(options, field.name) != field.default
    ]
    if log is not None:
        asked.append("log")
    if backend == SIMULATION:
        if config.precision == "int8":
            asked = [name for name in asked if name != "base"]  # the graph's own
        if config.target_cpu != "generic":
            raise UsageError("a target CPU for a simulation", got=config.target_cpu, fix="leave it out")
    else:
        check_onnxruntime(config)
    if asked:
        raise UsageError(f"options of TensorRT's builders for {backend}", got=", ".join(asked), fix="leave them out")


def build(
    model: Path,
    config: BuildConfig,
    ranges: Path | Ranges | None = None,
    *,
    backend: str = OnnxRuntimeBackend.name,
    options: TensorRTConfig | None = None,
    progress: Progress = _SILENT,
    log: Path | None = None,
) -> Engine:
    """Builds an engine.

    Args:
        model: An exported ONNX file, or one that another tool put Q/DQ into.
        config: What to build.
        ranges: A ranges file, or ranges just observed; for INT8 of a model without Q/DQ, and to audit FP16.
        backend: `onnxruntime`, a TensorRT flavor, or `simulation`.
        options: What is particular to TensorRT's builders; None for ONNX Runtime.
        progress: Told how far a TensorRT builder is, and what it was not asked for.
        log: Where to write what a TensorRT library says; None for ONNX Runtime.

    Raises:
        ArtifactError: ONNX Runtime cannot load what was built.
        DependencyError: The backend's library is not installed, or needs a GPU and there is none.
        InputError: A file cannot be read, the builder refuses the model, or the ranges are not the model's.
        PrecisionError: A layer does not run in the precision asked for it.
        UsageError: INT8 without ranges, ranges or another precision for a model with Q/DQ, or what the backend cannot
            do.
    """
    check_build(backend, config, options, log)
    if isinstance(ranges, Path):
        ranges = Ranges.load(ranges)
    data = read_bytes(model)
    if backend == SIMULATION:
        return build_simulation(data, config, (options or TensorRTConfig()).base, ranges, progress)
    if backend != OnnxRuntimeBackend.name:
        return build_tensorrt(find_flavor(backend), data, config, options, ranges, progress, log)
    return build_onnxruntime(data, config, ranges)
