"""Engines for the tests of the runtime: of the exported FCN-8s, and of nets with one layer that need no torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import EngineFile, Sidecar, Source, sidecar_path
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.files import sha256_file, write_json
from fcn_deploy.runtime import cpu
from tests.support import fake_nvidia
from tests.support.building import build


@pytest.fixture(scope="session")
def engine(exported, ranges_file, tmp_path_factory) -> Callable[..., Path]:
    """Builds an engine of the exported FCN-8s, once a session."""
    folder = tmp_path_factory.mktemp("engines")

    def path_of(io: str = "image", precision: str = "fp32", target_cpu: str = "generic") -> Path:
        path = folder / f"{io}.{precision}.{target_cpu}.onnx"
        if not path.exists():
            config = BuildConfig(precision, io, target_cpu=target_cpu)
            ranges = ranges_file("fcn8s") if precision == "int8" else None
            build(exported("fcn8s"), config, ranges).save(path)
        return path

    return path_of


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
    """Makes the spec of an untrained net."""

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


@pytest.fixture
def exact_8_bits(monkeypatch) -> Callable[[bool | None], None]:
    """Says whether weights of all 8 bits are exact on this machine's CPU; None if that is not known."""

    def say(answer: bool | None) -> None:
        monkeypatch.setattr(cpu, "exact_8_bits", lambda: answer)

    return say


@pytest.fixture
def world() -> Iterator[fake_nvidia.World]:
    """A machine with one fake GPU and all three fake libraries."""
    with fake_nvidia.installed(fake_nvidia.World()) as made:
        yield made


@pytest.fixture
def world_with() -> Iterator[Callable[..., fake_nvidia.World]]:
    """Makes a machine with one fake GPU and some of the fake libraries, by the names of their flavors."""
    with ExitStack() as stack:

        def make(*libraries: str) -> fake_nvidia.World:
            made = fake_nvidia.World()
            made.libraries = set(libraries)
            return stack.enter_context(fake_nvidia.installed(made))

        yield make


@pytest.fixture
def plan(tmp_path, make_spec) -> Callable[..., Path]:
    """Writes a plan of the fake library and its sidecar."""

    def write(
        backend: str = "tensorrt",
        *,
        library: str | None = None,
        target: dict[str, object] | None = None,
        sidecar: bool = True,
        data: bytes | None = None,
        **content: object,
    ) -> Path:
        path = tmp_path / "net.engine"
        path.write_bytes(fake_nvidia.plan_bytes(**content) if data is None else data)
        described = Sidecar(
            engine=EngineFile(path.name, sha256_file(path), path.stat().st_size),
            backend=backend,
            library=library or ("1.7.1.116" if backend == "tensorrt-rtx" else "10.3.0"),
            io=content.get("io", "image"),
            precision=Precision("int8", "fp16", "entropy"),
            spec=make_spec(3 if content.get("io") == "tensor" else 4),
            source=Source("0123456789abcdef"),
            target={"cpu": "generic", "gpu": ["8.6", "8.9"], **(target or {})},
            profiles=({"min": [1, 8, 8], "opt": [1, 32, 32], "max": [4, 64, 64]},),
        )
        if sidecar:
            write_json(sidecar_path(path), described.to_json())
        return path

    return write
