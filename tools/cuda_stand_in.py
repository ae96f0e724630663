"""A stand-in for TensorRT whose execution contexts launch real kernels, to try this package's CUDA side with.

It has what `fcn_deploy.runtime.tensorrt` calls of TensorRT 10, and is as strict: addresses have to be aligned, shapes
to lie in the profile, scratch memory to be large enough, and only one thread at a time may use a context. Its plans map
images to labels that numpy computes too (`reference`), in two kernels that pass their results on in scratch memory, so
that work in the wrong order, at a stale address or on a foreign stream gives wrong labels.

Nothing of it is a neural network: what runs between the copies is not what is tried.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, Stream, launch
from numpy.typing import NDArray

VERSION = "10.3.0"
_ALIGNMENT = 256
_THREADS = 256
_KERNELS = r"""
extern "C" __global__ void mix(const unsigned char* image, int* scratch, long long pixels) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < pixels) scratch[i] = 3 * image[3 * i] + 5 * image[3 * i + 1] + 7 * image[3 * i + 2];
}

extern "C" __global__ void label(const int* scratch, unsigned char* labels, long long pixels) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < pixels) labels[i] = (scratch[i] + 2 * scratch[pixels - 1 - i]) % 251;
}

extern "C" __global__ void fill(unsigned char* bytes, long long size, int value) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < size) bytes[i] = value;
}

extern "C" __global__ void wait(long long nanoseconds) {
    long long begin, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now - begin < nanoseconds);
}

extern "C" __global__ void trespass(int* nowhere) { nowhere[threadIdx.x] = 1; }
"""


@dataclass(frozen=True)
class Plan:
    """What a plan of the stand-in does.

    Attributes:
        profiles: The smallest and the largest [batch, height, width] of each.
        wait: Nanoseconds that the GPU waits between the two kernels.
        refuse: Runs, counted from 1 over all contexts, that the library refuses after the first kernel.
        capture: Whether a run can be captured in a CUDA graph.
        trespass: The run that writes to an address that is nobody's; 0 for none.
    """

    profiles: Sequence[Sequence[Sequence[int]]] = (((1, 8, 8), (4, 256, 256)),)
    wait: int = 0
    refuse: Sequence[int] = ()
    capture: bool = True
    trespass: int = 0

    def to_bytes(self) -> bytes:
        """Returns it as the content of a plan's file."""
        return json.dumps(asdict(self)).encode()


def reference(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the labels [N, H, W] that a plan gives for images [N, H, W, 3]."""
    mixed = image.astype(np.int32) @ np.array([3, 5, 7], np.int32)
    whole = mixed.reshape(-1)
    return ((whole + 2 * whole[::-1]) % 251).astype(np.uint8).reshape(mixed.shape)


@dataclass
class Record:
    """What the stand-in has seen.

    Attributes:
        runs: How many runs were queued.
        captured: How many of them into a CUDA graph.
        violations: What a real library would have answered with wrong results, or not at all.
    """

    runs: int = 0
    captured: int = 0
    violations: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Kernels:
    """The kernels, compiled for a GPU by NVRTC.

    Args:
        device: The GPU, which is current.
    """

    def __init__(self, device: Device) -> None:
        options = ProgramOptions(arch=f"sm_{device.arch}")
        code = Program(_KERNELS, "c++", options).compile("cubin")
        self._kernels = {name: code.get_kernel(name) for name in ("mix", "label", "fill", "wait", "trespass")}

    def queue(self, stream: Any, name: str, count: int, *arguments: Any) -> None:
        """Launches a kernel with one thread for each of `count` elements."""
        config = LaunchConfig(grid=max(1, -(-count // _THREADS)), block=min(_THREADS, count))
        launch(stream, config, self._kernels[name], *arguments)


@contextmanager
def installed(kernels: Kernels) -> Iterator[Record]:
    """Makes `import tensorrt` find the stand-in; a real TensorRT is back at the end."""
    record = Record()
    real = sys.modules.get("tensorrt")
    sys.modules["tensorrt"] = _library(kernels, record)
    try:
        yield record
    finally:
        del sys.modules["tensorrt"]
        if real is not None:
            sys.modules["tensorrt"] = real


class _Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class _Logger:
    Severity = _Severity


class _DataType(Enum):
    UINT8 = 0


_INPUT, _OUTPUT, _DEVICE = "INPUT", "OUTPUT", "DEVICE"


def _library(kernels: Kernels, record: Record) -> ModuleType:
    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> _Engine | None:
            try:
                plan = Plan(**json.loads(data))
            except (TypeError, ValueError) as error:
                self._logger.log(_Severity.ERROR, f"not a plan: {error}")
                return None
            return _Engine(plan, self._logger, kernels, record)

    module = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None, origin="a stand-in")
    names = {"__version__": VERSION, "ILogger": _Logger, "Runtime": Runtime}
    enums = {
        "TensorIOMode": Enum("TensorIOMode", {_INPUT: _INPUT, _OUTPUT: _OUTPUT}, type=str),
        "TensorLocation": Enum("TensorLocation", {_DEVICE: _DEVICE}, type=str),
        "ExecutionContextAllocationStrategy": Enum("ExecutionContextAllocationStrategy", "STATIC USER_MANAGED"),
    }
    vars(module).update(names | enums)
    return module


class _Engine:
    """What deserialize_cuda_engine returns."""

    num_io_tensors = 2

    def __init__(self, plan: Plan, logger: Any, kernels: Kernels, record: Record) -> None:
        self.plan, self.kernels, self.record = plan, kernels, record
        self._logger = logger
        self.num_optimization_profiles = len(plan.profiles)
        self.device_memory_size_v2 = max(map(self.get_device_memory_size_for_profile_v2, range(len(plan.profiles))))

    def refuse(self, reason: str) -> bool:
        self._logger.log(_Severity.ERROR, reason)
        return False

    def get_tensor_name(self, index: int) -> str:
        return ("image", "labels")[index]

    def get_tensor_mode(self, name: str) -> str:
        return _INPUT if name == "image" else _OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return _DataType.UINT8

    def get_tensor_format_desc(self, name: str) -> str:
        return "Row major linear UINT8 format (kLINEAR)"

    def get_tensor_location(self, name: str) -> str:
        return _DEVICE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, -1, -1, 3) if name == "image" else (-1, -1, -1)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        least, largest = self.plan.profiles[index]
        return [(*least, 3), (*largest, 3), (*largest, 3)]

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return int(np.prod(self.plan.profiles[profile][1])) * np.dtype(np.int32).itemsize

    def create_execution_context(self, strategy: Any) -> _Context:
        return _Context(self)


class _Context:
    """An execution context."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._profile = 0
        self._shape: tuple[int, ...] = ()
        self._scratch, self._room = 0, 0
        self._addresses: dict[str, int] = {}
        self._using = threading.Lock()

    def set_device_memory(self, address: int, size: int) -> None:
        if size < self._engine.get_device_memory_size_for_profile_v2(self._profile):
            self._violation(f"scratch memory of {size} bytes is too small for profile {self._profile}")
        self._scratch, self._room = address, size

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile, self._shape = profile, ()
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return self._engine.refuse(f"{name} {list(shape)} is outside profile {self._profile}")
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape if name == "image" else self._shape[:3]

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % _ALIGNMENT:
            self._violation(f"the address of {name} is not a multiple of {_ALIGNMENT}")
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if not self._using.acquire(blocking=False):
            self._violation("two threads in one execution context")
            return False
        try:
            return self._execute(Stream.from_handle(handle))
        finally:
            self._using.release()

    def _execute(self, stream: Any) -> bool:
        engine, plan, queue = self._engine, self._engine.plan, self._engine.kernels.queue
        pixels = int(np.prod(self._shape[:3]))
        if self._room < pixels * 4:
            self._violation("scratch memory is smaller than the shape needs")
        capturing = _capturing(stream)
        with engine.record.lock:
            engine.record.runs += 1
            engine.record.captured += capturing
            run = engine.record.runs
        queue(stream, "mix", pixels, self._addresses["image"], self._scratch, np.int64(pixels))
        if run in plan.refuse:
            return engine.refuse(f"run {run} is refused")
        if capturing and not plan.capture:
            stream.sync()  # which no capture survives
        if run == plan.trespass:
            queue(stream, "trespass", 1, 8)
        if plan.wait:
            queue(stream, "wait", 1, np.int64(plan.wait))
        queue(stream, "label", pixels, self._scratch, self._addresses["labels"], np.int64(pixels))
        return True

    def _violation(self, what: str) -> None:
        with self._engine.record.lock:
            self._engine.record.violations.append(what)


def _capturing(stream: Any) -> bool:
    _, status = driver.cuStreamIsCapturing(stream.handle)
    return bool(status == driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE)
