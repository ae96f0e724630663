"""The nets of gpu_check.py, and each of them in every library with every setting that is worth a row."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.calibration.observer import observe
from fcn_deploy.demo import CALIBRATION_SEEDS, EVALUATION_SEEDS, checkpoint_path, make_scene
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.onnxruntime import build_onnxruntime
from fcn_deploy.engines.tensorrt.builder import build_tensorrt
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.evaluation.parity import Output as Result
from fcn_deploy.graph.model import ExportedModel, load_exported
from fcn_deploy.models import FCN
from fcn_deploy.models.load import load_net
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend
from fcn_deploy.runtime.tensorrt.flavor import BUILDERS, Flavor
from fcn_deploy.workflows.exporting import export
from gpu_runners import EngineRunner, Images, Output, PlanRunner, Runner, TorchRunner
from training import save_net

_CLASSES = 21
_CALIBRATION_IMAGES = 16
_PARITY_IMAGES = 8
_OUTPUTS: tuple[Output, ...] = ("labels", "logits")


@dataclass(frozen=True, eq=False)
class Net:
    """A net, and what every case of it needs.

    Attributes:
        name: `demo`, or its width.
        shape: Of a batch of images.
        module: In PyTorch.
        spec: What it is.
        exported: The exported model.
        ranges: What calibration saw.
        images: To compare on, uint8 [N, H, W, 3].
        expected: What the reference makes of them.
        folder: For engines.
    """

    name: str
    shape: ImageShape
    module: torch.nn.Module
    spec: ModelSpec
    exported: ExportedModel
    ranges: Ranges
    images: Images
    expected: list[Result]
    folder: Path


@dataclass(frozen=True)
class Case:
    """A net in one library with one setting.

    Attributes:
        backend: The library.
        precision: `fp32`, `fp16` or `int8`.
        output: What comes back to the host.
        setting: What else distinguishes it, or empty.
        on_gpu: Whether it computes there.
        open: Makes it, of an engine that was built; what it raises is the library's refusal.
        build: Builds the engine and writes its file; None where there is none to build.
        engine: That file, which another case may have written before.
    """

    backend: str
    precision: str
    output: Output
    setting: str
    on_gpu: bool
    open: Callable[[], Runner]
    build: Callable[[], object] | None = None
    engine: Path | None = None

    @property
    def name(self) -> str:
        """In one line."""
        return ", ".join(filter(None, (self.backend, self.precision, self.output, self.setting)))


def make_net(name: str, shape: ImageShape, folder: Path, small: bool) -> Net:
    """Exports and calibrates a net, and runs the reference.

    Args:
        name: `demo`, or the width of an FCN-8s of random weights.
        shape: Of a batch of images.
        folder: For the exported model and the engines.
        small: Whether a few images will do.
    """
    weights, model = checkpoint_path(), folder / "net.onnx"
    if name != "demo":
        weights = folder / "random.safetensors"
        write_random_net(float(name), weights)
    # onnxsim changes nothing that matters here, and is one wheel less to carry.
    export(weights, simplify=not small and importlib.util.find_spec("onnxsim") is not None, output=model)
    net, size = load_net(weights), (shape.height, shape.width)
    count = 2 if small else _CALIBRATION_IMAGES
    exported = load_exported(model)
    ranges = observe(exported, (make_scene(seed, size).image for seed in CALIBRATION_SEEDS[:count]), size=size)
    batches = math.ceil((2 if small else _PARITY_IMAGES) / shape.batch)  # whole ones: engines are of exactly this shape
    seeds = EVALUATION_SEEDS[: batches * shape.batch]
    images = np.stack([make_scene(seed, size).image for seed in seeds])
    with Segmenter(model) as reference:
        logits = [reference.logits(image) for image in images]
    expected = [Result(scores.argmax(0), scores) for scores in logits]
    return Net(name, shape, net.module, reference.spec, exported, ranges, images, expected, folder)


def write_random_net(width: float, path: Path) -> None:
    """Writes a checkpoint of an FCN-8s of random weights, of 21 classes."""
    torch.manual_seed(0)
    net = FCN(8, _CLASSES, width)
    for _, score, _ in net.skips:  # they start as zero, and would have no part in anything
        torch.nn.init.kaiming_normal_(net.get_submodule(score).weight)  # type: ignore[arg-type]
    names = tuple(f"class_{index}" for index in range(_CLASSES))
    save_net(net, ModelSpec("fcn8s", 8, net.width, _CLASSES, names, default_palette(_CLASSES)), path)


def cases(net: Net, smoke: bool, compiled: bool) -> Iterator[Case]:
    """Returns what is to be run with a net.

    Args:
        net: The net.
        smoke: Whether PyTorch and ONNX Runtime run on the CPU.
        compiled: Whether torch.compile is tried, too.
    """
    yield from _torch_cases(net, "cpu" if smoke else "cuda", compiled)
    yield from _onnxruntime_cases(net, smoke)
    for flavor in BUILDERS:
        if flavor.installed:  # what is not is in what doctor says, which stands in the same file
            yield from _flavor_cases(net, flavor)


def _torch_cases(net: Net, device: str, compiled: bool) -> Iterator[Case]:
    def case(precision: str, output: Output, setting: str = "", **options: bool) -> Case:
        dtype = torch.float16 if precision == "fp16" else torch.float32

        def make() -> Runner:
            return TorchRunner(net.module, net.spec.normalization, output, device, dtype, **options)

        return Case("pytorch", precision, output, setting, device == "cuda", make)

    for output in _OUTPUTS:
        yield case("fp32", output)
        if device == "cuda":
            yield case("fp16", output, "channels_last", channels_last=True)
    yield case("fp32", "labels", "channels_last", channels_last=True)
    if device == "cuda":
        yield case("fp32", "labels", "TF32", tf32=True)
        yield case("fp32", "labels", "TF32, channels_last", tf32=True, channels_last=True)
        yield case("fp16", "labels")
    if compiled:
        yield case("fp32", "labels", "compiled", compiled=True)
        if device == "cuda":
            yield case("fp16", "labels", "channels_last, compiled", channels_last=True, compiled=True)


def _onnxruntime_cases(net: Net, smoke: bool) -> Iterator[Case]:
    def case(precision: Any, output: Output) -> Case:
        path = net.folder / f"{precision}.{output}.onnx"

        def build() -> None:
            build_onnxruntime(net.exported, BuildConfig(precision, _io(output)), net.ranges).save(path)

        def open_engine() -> Runner:
            return EngineRunner(OnnxRuntimeBackend(path, provider="cpu" if smoke else "cuda"), net.spec.normalization)

        return Case("onnxruntime", precision, output, "", not smoke, open_engine, build, path)

    for precision in ("fp32", "int8") if smoke else ("fp32",):  # its CUDA provider would compute INT8 in float
        for output in _OUTPUTS:
            yield case(precision, output)


def _io(output: Output) -> Any:
    return "image" if output == "labels" else "tensor"


def _flavor_cases(net: Net, flavor: Flavor) -> Iterator[Case]:
    def case(precision: Any, output: Output, graphs: bool) -> Case:
        path = net.folder / f"{flavor.name}.{precision}.{output}.engine"

        def build() -> None:
            exactly = TensorRTConfig(profiles=(ImageProfile(net.shape, net.shape, net.shape),))
            build_tensorrt(flavor, net.exported, BuildConfig(precision, _io(output)), exactly, net.ranges).save(path)

        def open_engine() -> Runner:
            kept = {} if graphs else {"graphs": 0}
            return PlanRunner(TensorRTBackend(path, flavor=flavor.name, **kept), net.spec.normalization)

        setting = "CUDA graph" if graphs else ""
        return Case(flavor.name, precision, output, setting, True, open_engine, build, path)

    for precision in ("fp32", "fp16", "int8"):
        for output in _OUTPUTS:
            for graphs in (False, True):
                yield case(precision, output, graphs)
