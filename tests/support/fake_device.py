"""A device with a GPU and a library that builds and runs: the fakes of CUDA and TensorRT, joined by a builder.

The net of its plans is `red_over_blue`: label 1 where a pixel is more red than blue. It knows the precision of a graph
by its bytes, and reads nothing else of it, so that it works where onnx is not installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support import fake_nvidia
from tests.support.fake_builder import fake_tensorrt
from tests.support.fake_nvidia import World

_ENUMS = (
    "BuilderFlag",
    "NetworkDefinitionCreationFlag",
    "ProfilingVerbosity",
    "MemoryPoolType",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "IProgressMonitor",
)


def red_over_blue(images: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] to labels."""
    return (images[..., 0] > images[..., 2]).astype(np.uint8)


class Plans:
    """What the builder makes of graphs, by precision.

    Attributes:
        seconds: How long an engine takes.
        wrong: The precisions whose engines give label 0 where `red_over_blue` gives 1 on half of the rows.
        refused: The precisions whose graphs the parser refuses.
        inspected: What the library's inspector says of every engine.
        built: What was built: precision, profiles, and the GPU architectures that were asked for.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.wrong: set[str] = set()
        self.refused: set[str] = set()
        self.inspected = "{}"
        self.built: list[tuple[str, Any, Any]] = []


@contextmanager
def device(world: World, plans: Plans) -> Iterator[World]:
    """Makes imports of NVIDIA's packages find the libraries of a world, which build as `plans` says."""
    library, context = fake_nvidia.library, fake_nvidia.Context
    fake_nvidia.library = lambda *arguments: _with_builder(library(*arguments), plans)
    fake_nvidia.Context = _Context  # type: ignore[misc]
    fake_nvidia.Engine.create_engine_inspector = lambda self: _Inspector(plans)  # type: ignore[attr-defined]
    try:
        with fake_nvidia.installed(world):
            yield world
    finally:
        fake_nvidia.library, fake_nvidia.Context = library, context  # type: ignore[misc]
        del fake_nvidia.Engine.create_engine_inspector  # type: ignore[attr-defined]


class _Inspector:
    def __init__(self, plans: Plans) -> None:
        self.plans = plans

    def get_engine_information(self, form: Any) -> str:
        return self.plans.inspected


class _Context(fake_nvidia.Context):
    def _queue(self, stream: Any, addresses: dict[str, int], captured: bool) -> None:
        super()._queue(stream, addresses, captured)
        world, plan, shape = self.world, self.engine.plan, self.shapes["image"]
        if "net" not in plan:
            return
        output = next(name for name in self.engine.tensors if name != "image")

        def work() -> None:
            image = world.bytes_at(addresses["image"], int(np.prod(shape))).reshape(shape)
            labels = red_over_blue(image)
            if plan["net"] == "wrong":
                labels[:, ::2] = 0
            time.sleep(plan["seconds"])
            world.bytes_at(addresses[output], labels.size).reshape(labels.shape)[...] = labels

        stream.put(work)


def _with_builder(module: Any, plans: Plans) -> Any:
    fake, _ = fake_tensorrt(module.__version__)
    for name in _ENUMS:
        setattr(module, name, getattr(fake, name))
    module.ComputeCapability = SimpleNamespace(SM86="SM86", SM89="SM89", SM80="SM80")

    class Network:
        data = b""

        @property
        def io(self) -> str:
            return "tensor" if b"tensor" in self.data else "image"

        def get_input(self, index: int) -> Any:
            return SimpleNamespace(shape=(-1, -1, -1, 3) if self.io == "image" else (-1, 3, -1, -1))

    class Config:
        num_compute_capabilities = 0

        def __init__(self) -> None:
            self.profiles: list[Any] = []
            self.architectures: list[str] = []

        def clear_flag(self, flag: Any) -> None:
            assert flag.name == "TF32"

        def add_optimization_profile(self, profile: Any) -> int:
            self.profiles.append(profile.shapes)
            return 0

        def set_compute_capability(self, architecture: str, index: int) -> bool:
            assert index < self.num_compute_capabilities
            self.architectures.append(architecture)
            return True

    class Profile:
        shapes: Any = None

        def set_shape(self, name: str, *shapes: Any) -> None:
            assert name == "image"
            images = ([n, h, w] if c == 3 else [n, w, c] for n, h, w, c in shapes)  # channels last, or first
            self.shapes = dict(zip(("min", "opt", "max"), images, strict=True))

    class Builder:
        def __init__(self, logger: Any) -> None:
            pass

        def create_network(self, flags: int) -> Network:
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> bytes:
            precision = "int8" if b"int8-fp16" in network.data else "fp16"
            plans.built.append((precision, config.profiles, config.architectures))
            if network.io == "tensor":  # which gives 4 times what it is given
                return fake_nvidia.plan_bytes("tensor", config.profiles)
            return fake_nvidia.plan_bytes(
                profiles=config.profiles,
                net="wrong" if precision in plans.wrong else "right",
                seconds=plans.seconds.get(precision, 0),
            )

    class OnnxParser:
        num_errors = 1

        def __init__(self, network: Network, logger: Any) -> None:
            self.network = network

        def parse(self, data: bytes) -> bool:
            self.network.data = data
            assert b"int8-fp16" in data or b"fp16-fp16" in data, "not one of the graphs that deploy makes"
            return ("int8" if b"int8-fp16" in data else "fp16") not in plans.refused

        def get_error(self, index: int) -> Any:
            return SimpleNamespace(
                node_operator=lambda: "Conv",
                node_name=lambda: "head",
                code=lambda: SimpleNamespace(name="UNSUPPORTED_NODE"),
                desc=lambda: "no such operator",
            )

    for each in (Builder, OnnxParser):
        setattr(module, each.__name__, each)
    return module
