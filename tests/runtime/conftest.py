"""Engines for the tests of the runtime: of the exported FCN-8s, and of nets of one layer that need no torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy import steps
from fcn_deploy.build import BuildConfig
from fcn_deploy.sidecar import sidecar_path
from fcn_deploy.spec import METADATA_KEY, ModelSpec, Normalization, default_palette


@pytest.fixture(scope="session")
def engine(exported, ranges_file, tmp_path_factory) -> Callable[..., Path]:
    """Builds an engine of the exported FCN-8s, once a session."""
    folder = tmp_path_factory.mktemp("engines")

    def build(io: str = "image", precision: str = "fp32", target_cpu: str = "generic") -> Path:
        path = folder / f"{io}.{precision}.{target_cpu}.onnx"
        if not path.exists():
            config = BuildConfig(precision, io, target_cpu=target_cpu)
            ranges = ranges_file("fcn8s") if precision == "int8" else None
            steps.build(exported("fcn8s"), config, ranges).save(path)
        return path

    return build


@pytest.fixture
def moved(tmp_path) -> Callable[..., Path]:
    """Copies an engine to a folder of its own, with or without its sidecar."""

    def copy(engine: Path, *, sidecar: bool = True) -> Path:
        target = tmp_path / engine.name
        shutil.copy(engine, target)
        if sidecar:
            shutil.copy(sidecar_path(engine), sidecar_path(target))
        return target

    return copy


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., ModelSpec]:
    """Makes the spec of a net that nobody trained."""

    def make(classes: int = 4, normalization: Normalization | None = None) -> ModelSpec:
        names = tuple(f"class {index}" for index in range(classes))
        return ModelSpec(
            "fcn8s", 8, 1.0, classes, names, default_palette(classes), normalization=normalization or Normalization()
        )

    return make


@pytest.fixture
def tiny_net(tmp_path, make_spec) -> Callable[..., Path]:
    """Writes an exported net of one 1x1 convolution, `logits = weights @ image`."""

    def write(
        weights: np.ndarray,
        *,
        spec: ModelSpec | str | None = None,
        shape: Sequence[int | str] = ("batch", 3, "height", "width"),
        names: tuple[str, str] = ("image", "logits"),
        file: str = "tiny.onnx",
    ) -> Path:
        classes = len(weights)
        kernel = numpy_helper.from_array(weights.astype(np.float32).reshape(classes, 3, 1, 1), "score.weight")
        node = helper.make_node("Conv", [names[0], "score.weight"], [names[1]], name="score", kernel_shape=[1, 1])
        source = helper.make_tensor_value_info(names[0], TensorProto.FLOAT, list(shape))
        target = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [shape[0], classes, shape[2], shape[3]])
        graph = helper.make_graph([node], "tiny", [source], [target], [kernel])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        text = spec if isinstance(spec, str) else (spec or make_spec(classes)).dumps()
        if text:
            helper.set_model_props(model, {METADATA_KEY: text})
        path = tmp_path / file
        onnx.save(model, path)
        return path

    return write
