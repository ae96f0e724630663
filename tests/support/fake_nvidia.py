"""A fake CUDA and fake TensorRT libraries that compute on the host and record what is done with them.

They are strict where the real ones would give wrong results silently: memory must be allocated while it is used, work
runs when a stream is waited for and not before, only one thread at a time uses an execution context, and the context of
a CUDA graph must not change after the capture. tests/gpu runs the real ones.

`installed` puts the fakes where Python finds modules, so that the code under test imports them itself.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from fcn_deploy.runtime.tensorrt.driver import Gpu
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS

VERSIONS = {"tensorrt": "10.3.0", "tensorrt-rtx": "1.7.1.116", "tensorrt-lean": "10.3.0"}
SUCCESS = SimpleNamespace(name="CUDA_SUCCESS")
SCRATCH = 1000
DTYPES = {"UINT8": np.uint8, "FLOAT": np.float32}


class World:
    """A machine: its GPUs, libraries, memory and streams, and what has happened, in order.

    Attributes:
        driver: What `cuInit` returns.
        gpus: What the driver finds.
        libraries: The names of the flavors that are installed.
        fail: The call that fails: execute, context or capture; None for none.
        room: Bytes of GPU memory that may be allocated at a time; any number if None.
        pinned: Addresses of page-locked memory that is not the runtime's own.
        delay: How long a stream takes, in seconds.
        cache_accepted: Whether the library accepts the content of a runtime cache.
    """

    def __init__(self) -> None:
        self.driver = "CUDA_SUCCESS"
        self.gpus: tuple[Gpu, ...] = (Gpu(0, "Fake", "8.6", 1 << 30),)
        self.libraries = set(VERSIONS)
        self.events: list[tuple[Any, ...]] = []
        self.memory: dict[int, np.ndarray] = {}
        self.streams: dict[int, Stream] = {}
        self.current = threading.local()
        self.contexts: list[weakref.ref[Context]] = []
        self.made = 0
        self.fail: str | None = None
        self.room: int | None = None
        self.used = 0
        self.counting = threading.Lock()
        self.pinned: set[int] = set()
        self.delay = 0.0
        self.cache_accepted = True

    def did(self, *event: Any) -> None:
        self.events.append(event)

    def names(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] in kinds]

    def count(self, *event: Any) -> int:
        return sum(each[: len(event)] == event for each in self.events)

    def allocate(self, kind: str, size: int) -> Buffer:
        if kind == "device":
            with self.counting:
                if self.room is not None and self.used + size > self.room:
                    raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because\nthere is no memory")
                self.used += size
        array = aligned(size)
        array[...] = 0xAB
        self.memory[array.ctypes.data] = array
        self.did("allocate", kind, size)
        return Buffer(self, kind, array)

    def bytes_at(self, address: int, size: int) -> np.ndarray:
        for start, array in list(self.memory.items()):
            if start <= address and address + size <= start + array.nbytes:
                return array[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address} are not allocated")


class Buffer:
    def __init__(self, world: World, kind: str, array: np.ndarray) -> None:
        self.world, self.kind, self.array = world, kind, array
        self.handle = array.ctypes.data

    def close(self) -> None:
        del self.world.memory[self.handle]
        with self.world.counting:
            self.world.used -= self.array.nbytes if self.kind == "device" else 0
        self.world.did("free", self.kind)


def aligned(size: int, offset: int = 0) -> np.ndarray:
    """Bytes whose address is a multiple of 256, plus an offset, as GPU memory has it."""
    array = np.empty(size + offset + 256, np.uint8)
    begin = -array.ctypes.data % 256 + offset
    return array[begin : begin + size]


class Stream:
    def __init__(self, world: World, device: int) -> None:
        self.world, self.device = world, device
        self.handle = 7000 + len(world.streams)
        self.queue: list[Any] = []
        self.recording: list[Any] | None = None
        world.streams[self.handle] = self

    def put(self, work: Any) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def sync(self) -> None:
        assert self.recording is None
        if self.world.delay:
            time.sleep(self.world.delay)
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def close(self) -> None:
        self.world.did("free", "stream")

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self)


class GraphBuilder:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.work: list[Any] = []

    def begin_building(self, mode: str) -> None:
        assert mode == "thread_local"
        self.stream.recording = self.work
        self.stream.world.did("capture")

    def end_building(self) -> None:
        self.stream.recording = None

    def complete(self) -> Graph:
        assert self.work, "an empty graph"
        return Graph(self.stream, self.work)

    def close(self) -> None:
        pass


class Graph:
    def __init__(self, stream: Stream, work: list[Any]) -> None:
        self.world, self.work = stream.world, work
        self.closed = False

    def launch(self, stream: Stream) -> None:
        assert not self.closed
        self.world.did("launch")
        for work in self.work:
            stream.put(work)

    def close(self) -> None:
        self.closed = True
        self.work = []
        self.world.did("free", "graph")


class GpuArray:
    """An array on the GPU that another library made, with DLPack or with `__cuda_array_interface__` alone."""

    def __init__(
        self, world: World, array: np.ndarray, *, device: int = 0, dlpack: bool = True, offset: int = 0
    ) -> None:
        whole = aligned(max(array.nbytes, 1), offset)
        self.buffer = Buffer(world, "foreign", whole)
        world.memory[whole.ctypes.data] = whole
        self.buffer.array[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self.dtype, self.device, self.readonly = array.dtype, device, False
        self.view_shape, self.strides = array.shape, None
        if dlpack:
            self.__dlpack_device__ = lambda: (2, device)
        else:
            self.__cuda_array_interface__ = {"version": 3}

    def read(self) -> np.ndarray:
        count = int(np.prod(self.view_shape))
        return self.buffer.array[: count * self.dtype.itemsize].view(self.dtype).reshape(self.view_shape)


class _Imports(MetaPathFinder, Loader):
    """Imports the fake libraries, and records it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.flavors = {flavor.module: flavor.name for flavor in FLAVORS.values()}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, origin="a fake") if name in self.flavors else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return library(self.world, spec.name, VERSIONS[self.flavors[spec.name]])

    def exec_module(self, module: ModuleType) -> None:
        self.world.did("load", self.flavors[module.__name__])


@contextmanager
def installed(world: World) -> Iterator[World]:
    """Makes imports of NVIDIA's packages find the fakes of a world, and only those of its libraries."""
    driver = cuda_driver(world)
    packages = {
        "cuda": module("cuda"),
        "cuda.core": cuda_core(world),
        "cuda.bindings": module("cuda.bindings", driver=driver),
        "cuda.bindings.driver": driver,
    }
    missing = {flavor.module: None for flavor in FLAVORS.values() if flavor.name not in world.libraries}
    names = {*packages, *(flavor.module for flavor in FLAVORS.values())}
    real = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    imports = _Imports(world)
    sys.meta_path.insert(0, imports)
    sys.modules.update(packages | missing)  # type: ignore[arg-type]
    try:
        yield world
    finally:
        sys.meta_path.remove(imports)
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(real)


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None, origin="a fake")
    vars(made).update(members)
    return made


def cuda_core(world: World) -> ModuleType:
    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        def set_current(self) -> None:
            world.current.context = f"primary {self.index}"

        def create_stream(self) -> Stream:
            assert world.current.context == f"primary {self.index}"
            return Stream(world, self.index)

        def allocate(self, size: int, *, stream: Stream) -> Buffer:
            assert world.current.context == f"primary {self.index}"
            return world.allocate("device", size)

    class LegacyPinnedMemoryResource:
        def allocate(self, size: int) -> Buffer:
            return world.allocate("pinned", size)

    class StridedMemoryView:
        @staticmethod
        def from_any_interface(array: GpuArray, stream_ptr: int) -> Any:
            assert stream_ptr in world.streams
            return SimpleNamespace(
                ptr=array.buffer.handle,
                shape=array.view_shape,
                strides=array.strides,
                dtype=array.dtype,
                device_id=array.device,
                is_device_accessible=True,
                readonly=array.readonly,
            )

    return module(
        "cuda.core",
        Device=Device,
        LegacyPinnedMemoryResource=LegacyPinnedMemoryResource,
        utils=SimpleNamespace(StridedMemoryView=StridedMemoryView),
    )


def cuda_driver(world: World) -> ModuleType:
    def init(flags: int) -> Any:
        world.did("driver")
        return (SimpleNamespace(name=world.driver) if world.driver != SUCCESS.name else SUCCESS,)

    def attribute(key: int, index: int) -> Any:
        return SUCCESS, int(world.gpus[index].compute_capability.split(".")[key])

    def get() -> Any:
        return SUCCESS, getattr(world.current, "context", None)

    def put(context: Any) -> Any:
        world.current.context = context
        return (SUCCESS,)

    def up(address: int, host: int, size: int, handle: int) -> Any:
        world.did("copy", host)
        world.bytes_at(address, size), world.bytes_at(host, size)
        world.streams[handle].put(lambda: np.copyto(world.bytes_at(address, size), world.bytes_at(host, size)))
        return (SUCCESS,)

    def pointer(key: str, address: int) -> Any:
        return (SUCCESS, 1) if address in world.pinned else (SimpleNamespace(name="CUDA_ERROR_INVALID_VALUE"), None)

    def across(target: int, source: int, size: int, handle: int) -> Any:
        world.did("copy on the device", size)
        return up(target, source, size, handle)

    major, minor = "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR"
    return module(
        "cuda.bindings.driver",
        CUresult=SimpleNamespace(CUDA_SUCCESS=SUCCESS),
        CUdevice_attribute=SimpleNamespace(**{major: 0, minor: 1}),
        cuInit=init,
        cuDriverGetVersion=lambda: (SUCCESS, 12060),
        cuDeviceGetCount=lambda: (SUCCESS, len(world.gpus)),
        cuDeviceGet=lambda index: (SUCCESS, index),
        cuDeviceGetName=lambda length, index: (SUCCESS, world.gpus[index].name.encode().ljust(length, b"\0")),
        cuDeviceGetAttribute=attribute,
        cuDeviceTotalMem=lambda index: (SUCCESS, world.gpus[index].memory),
        cuCtxGetCurrent=get,
        cuCtxSetCurrent=put,
        cuMemcpyHtoDAsync=up,
        cuMemcpyDtoHAsync=up,
        cuMemcpyDtoDAsync=across,
        CUpointer_attribute=SimpleNamespace(CU_POINTER_ATTRIBUTE_MEMORY_TYPE="memory type"),
        CUmemorytype=SimpleNamespace(CU_MEMORYTYPE_HOST=1, CU_MEMORYTYPE_DEVICE=2),
        cuPointerGetAttribute=pointer,
    )


def plan_bytes(io: str = "image", profiles: Any = None, **changes: Any) -> bytes:
    """A plan of the fake library: it maps uint8 images to their red channel, or floats to 4 times themselves."""
    profiles = profiles or [{"min": [1, 8, 8], "opt": [1, 32, 32], "max": [4, 64, 64]}]
    return json.dumps({"io": io, "profiles": profiles, **changes}).encode()


class Engine:
    def __init__(self, world: World, plan: dict[str, Any]) -> None:
        self.world, self.plan = world, plan
        self.num_io_tensors = 2
        self.num_optimization_profiles = len(plan["profiles"])
        self.device_memory_size_v2 = SCRATCH * len(plan["profiles"])
        image = plan["io"] == "image"
        self.tensors = {
            "image": ("UINT8" if image else "FLOAT", [-1, -1, -1, 3] if image else [-1, 3, -1, -1]),
            "labels" if image else "logits": (
                plan.get("dtype", "UINT8" if image else "FLOAT"),
                [-1, -1, -1] if image else [-1, 3, -1, -1],
            ),
        }

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == "image" else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name][1]

    def get_tensor_format_desc(self, name: str) -> str:
        return self.plan.get("format", f"Row major linear {self.tensors[name][0]} format (kLINEAR)")

    def get_tensor_location(self, name: str) -> str:
        return self.plan.get("location", "DEVICE")

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        shapes = []
        for key in ("min", "opt", "max"):
            batch, height, width = self.plan["profiles"][index][key]
            shapes.append([batch, height, width, 3] if self.plan["io"] == "image" else [batch, 3, height, width])
        return shapes

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return SCRATCH * (profile + 1)

    def create_execution_context(self, how: Any) -> Any:
        if self.world.fail == "context":
            return None
        if self.world.fail == "full":
            self.plan["log"]("[executionContext.cpp] Error Code 2: OutOfMemory (Requested size was 4 bytes.)")
            return None
        return Context(self, how)

    def __del__(self) -> None:
        self.world.did("free", "engine")


class RtxEngine(Engine):
    def create_runtime_config(self) -> Any:
        return RuntimeConfig(self.world)


class RuntimeConfig:
    def __init__(self, world: World) -> None:
        self.world = world
        self.cache: Any = None

    def create_runtime_cache(self) -> Any:
        return RuntimeCache(self.world)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    def __init__(self, world: World) -> None:
        self.world, self.content = world, b"compiled"

    def deserialize(self, content: bytes) -> bool:
        if self.world.cache_accepted:
            self.content = content
        return self.world.cache_accepted

    def serialize(self) -> memoryview:
        self.world.did("serialize")
        return memoryview(self.content)


class Context:
    def __init__(self, engine: Engine, how: Any) -> None:
        self.engine, self.world, self.native = engine, engine.world, isinstance(how, RuntimeConfig)
        assert self.native or how == "USER_MANAGED"
        self.using = threading.Lock()
        self.profile, self.version = 0, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: int | None = None
        self.world.made += 1
        self.world.contexts.append(weakref.ref(self))

    @contextmanager
    def used(self) -> Any:
        assert self.using.acquire(blocking=False), "two threads in one execution context"
        try:
            yield
        finally:
            self.using.release()

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= SCRATCH * (self.profile + 1)
        self.world.bytes_at(address, size)
        self.scratch = address
        self.version += 1

    def set_optimization_profile_async(self, index: int, handle: int) -> bool:
        with self.used():
            assert handle in self.world.streams
            self.profile, self.version = index, self.version + 1
            self.world.did("profile", index)
            return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        with self.used():
            low, _, high = self.engine.get_tensor_profile_shape(name, self.profile)
            self.shapes[name] = tuple(shape)
            self.version += 1
            self.world.did("shape", name, tuple(shape))
            return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes["image"]
        if name == "image" or self.engine.plan["io"] == "tensor":
            return shape
        return (*shape[:2], -1) if self.engine.plan.get("dynamic_output") else shape[:3]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0
        self.addresses[name] = address
        self.world.did("address", name, address)
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if self.world.fail == "execute":
            self.engine.plan["log"]("the GPU has left the building")
            return False
        with self.used():
            stream = self.world.streams[handle]
            captured = stream.recording is not None
            if captured and self.world.fail == "capture":
                raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: and more\nlines")
            self.world.did("enqueue", self.shapes["image"])
            assert self.native or self.scratch is not None
            self._queue(stream, dict(self.addresses), captured)
            return True

    def _queue(self, stream: Stream, addresses: dict[str, int], captured: bool) -> None:
        alive, version, world, shape = weakref.ref(self), self.version, self.world, self.shapes["image"]
        scratch, output = self.scratch, next(name for name in self.engine.tensors if name != "image")
        source, target = (DTYPES[self.engine.tensors[name][0]] for name in ("image", output))
        out_shape = self.get_tensor_shape(output)

        def work() -> None:
            context = alive()
            assert context is not None, "the execution context has been freed"
            assert not captured or context.version == version, "the graph's execution context has been changed"
            if scratch is not None:
                world.bytes_at(scratch, SCRATCH)
            with context.used():
                size = int(np.prod(shape)) * np.dtype(source).itemsize
                image = world.bytes_at(addresses["image"], size).view(source).reshape(shape)
                result = image[..., 0] if source is np.uint8 else image * 4
                size = int(np.prod(out_shape)) * np.dtype(target).itemsize
                world.bytes_at(addresses[output], size).view(target).reshape(out_shape)[...] = result

        stream.put(work)

    def __del__(self) -> None:
        self.world.did("free", "context")


_STRATEGIES = {
    "CudaGraphStrategy": SimpleNamespace(DISABLED="DISABLED", WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE"),
    "DynamicShapesKernelSpecializationStrategy": SimpleNamespace(EAGER="EAGER", LAZY="LAZY", NONE="NONE"),
}


def library(world: World, name: str, version: str) -> ModuleType:
    """Makes a module like one of NVIDIA's three: it has what test_conformance.py finds in the real one, and no more."""
    rtx = name == "tensorrt_rtx"

    class ILogger:
        Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger, self.engine_host_code_allowed = logger, None
            world.did("runtime", name)

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            assert world.current.context is not None
            world.did("host code", self.engine_host_code_allowed)
            try:
                plan = json.loads(data)
            except ValueError:
                self.logger.log(ILogger.Severity.ERROR, "the magic tag does not match")
                return None
            self.logger.log(ILogger.Severity.WARNING, "this plan is a fake")
            plan["log"] = lambda text: self.logger.log(ILogger.Severity.ERROR, text)
            return (RtxEngine if rtx else Engine)(world, plan)

        def __del__(self) -> None:
            world.did("free", "runtime")

    return module(
        name,
        __version__=version,
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
        TensorLocation=SimpleNamespace(DEVICE="DEVICE", HOST="HOST"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED", STATIC="STATIC"),
        **(_STRATEGIES if rtx else {}),
    )
