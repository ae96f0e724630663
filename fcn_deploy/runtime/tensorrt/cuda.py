"""A GPU's memory, streams and graphs, through NVIDIA's own Python packages.

Use it only after `driver.find_gpus` has found a driver: most of cuda.core needs one.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import ArtifactError, DependencyError, InputError
from fcn_deploy.runtime.tensorrt.driver import cuda_of_driver, install_cuda_packages

# Device types of DLPack: memory of a GPU and memory that both sides see; and memory of the host that is page-locked.
_DLPACK_ON_GPU = (2, 13)
_DLPACK_PINNED = 3
# What the driver calls a full memory, in the messages of its own packages and of TensorRT's libraries.
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "out_of_memory")


def _installed() -> bool:
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.core") is not None


def _core() -> Any:
    return importlib.import_module("cuda.core")


def _driver() -> Any:
    return importlib.import_module("cuda.bindings.driver")


def _checked(result: tuple[Any, ...]) -> Any:
    """Unpacks what a function of the driver returns: a status, and at most one value."""
    status, *values = result
    if status != _driver().CUresult.CUDA_SUCCESS:
        raise ArtifactError("the CUDA driver refused a call", got=status.name)
    return values[0] if values else None


class OutOfMemoryError(ArtifactError):
    """The GPU, or what the driver may lock of the host's memory, is full."""


def is_out_of_memory(message: str) -> bool:
    """Returns whether a message of the driver or of a library says that memory is full."""
    return any(words in message.lower() for words in _OUT_OF_MEMORY)


@contextmanager
def _allocating(what: str, where: str) -> Iterator[None]:
    """Tells a full memory from other errors, by the message: the class belongs to a package that may be missing."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(str(error)):
            raise
        raise OutOfMemoryError(f"{where} is full", got=f"no room for {what}") from error


@dataclass(frozen=True)
class DeviceArray:
    """An array on the GPU that the caller owns.

    Attributes:
        address: The address of its first byte.
        shape: The sizes of its axes; the elements lie in C order.
        dtype: The type of its elements.
        readonly: Whether it must not be written to.
        owner: The object that keeps its memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    readonly: bool
    owner: object

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def is_device_array(array: object) -> bool:
    """Returns whether an object says by DLPack or `__cuda_array_interface__` that its memory is on a GPU."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__cuda_array_interface__"):
        return True
    where = getattr(array, "__dlpack_device__", None)
    return where is not None and where()[0] in _DLPACK_ON_GPU


def pinned_array(array: object) -> NDArray[Any] | None:
    """Returns a view of an array that another library keeps in page-locked memory of the host; None for all others.

    Such an array belongs to the host: what writes to it must be done before it is passed on.
    """
    where = getattr(array, "__dlpack_device__", None)
    if isinstance(array, np.ndarray) or where is None or where()[0] != _DLPACK_PINNED:
        return None
    view: NDArray[Any] = np.from_dlpack(array)  # type: ignore[arg-type]
    return view


def is_pinned(array: NDArray[Any]) -> bool:
    """Returns whether the GPU can read an array of the host by itself: in C order, in page-locked memory."""
    driver = _driver()
    if not array.flags.c_contiguous or array.nbytes == 0:
        return False
    key = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    status, kind = driver.cuPointerGetAttribute(key, array.ctypes.data)
    # Memory that CUDA has never heard of, as most of the host's, is an invalid value to it.
    known = status == driver.CUresult.CUDA_SUCCESS
    return known and int(kind) == int(driver.CUmemorytype.CU_MEMORYTYPE_HOST)


class Device:
    """One GPU.

    Args:
        index: Its index, as CUDA counts GPUs.

    Raises:
        DependencyError: cuda-core is not installed, or too old.
    """

    def __init__(self, index: int) -> None:
        if not _installed():
            raise DependencyError(
                "plans need NVIDIA's cuda-core", got="no module cuda.core", fix=install_cuda_packages(cuda_of_driver())
            )
        if not hasattr(_core(), "Device"):  # 0.4 and older have it under cuda.core.experimental
            raise DependencyError(
                "cuda-core is too old", expected="0.5 or newer", fix=install_cuda_packages(cuda_of_driver())
            )
        self.index = index

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes it the calling thread's current device, and restores the one before at the end of the `with`."""
        driver = _driver()
        before = _checked(driver.cuCtxGetCurrent())
        _core().Device(self.index).set_current()
        try:
            yield
        finally:
            _checked(driver.cuCtxSetCurrent(before))

    def stream(self) -> Stream:
        """Makes a stream.

        Raises:
            OutOfMemoryError: The GPU has no room for it.
        """
        with _allocating("another stream", f"the memory of GPU {self.index}"):
            return Stream(self.index, _core().Device(self.index).create_stream())


class Stream:
    """A queue of work on a GPU, made by `Device.stream`.

    Attributes:
        handle: Its `CUstream`, as a number.
    """

    def __init__(self, device: int, stream: Any) -> None:
        self._device = device
        self._stream = stream
        self.handle = int(stream.handle)

    def sync(self) -> None:
        """Waits until its work is done."""
        self._stream.sync()

    def close(self) -> None:
        """Destroys it."""
        self._stream.close()

    def copy_to_device(self, address: int, host: NDArray[Any]) -> None:
        """Queues a copy from pinned memory, which must not change until the copy is done."""
        _checked(_driver().cuMemcpyHtoDAsync(address, host.ctypes.data, host.nbytes, self._stream.handle))

    def copy_to_host(self, host: NDArray[np.uint8], address: int) -> None:
        """Queues a copy to pinned memory."""
        _checked(_driver().cuMemcpyDtoHAsync(host.ctypes.data, address, host.nbytes, self._stream.handle))

    def copy_on_device(self, target: int, source: int, size: int) -> None:
        """Queues a copy of `size` bytes from one address of the GPU to another."""
        _checked(_driver().cuMemcpyDtoDAsync(target, source, size, self._stream.handle))

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Records what a function queues on this stream, without running it.

        Raises:
            Exception: What `enqueue` raises; the stream can still be used afterwards.
        """
        builder = self._stream.create_graph_builder()
        try:
            # What other threads do with CUDA meanwhile is not recorded, and must not end the recording.
            builder.begin_building(mode="thread_local")
            try:
                enqueue()
            except BaseException:
                with suppress(Exception):  # it only repeats that the capture has failed
                    builder.end_building()
                raise
            builder.end_building()
            return Graph(builder.complete(), self._stream, self._device)
        finally:
            builder.close()

    def view(self, name: str, array: object) -> DeviceArray:
        """Views an array that the caller owns without copying it; this stream waits for the work that made it.

        Args:
            name: The name of the tensor that it is for, for error messages.
            array: An object with DLPack or `__cuda_array_interface__`.

        Raises:
            InputError: It is on another device, is not in C order, or has a dtype that numpy does not have.
        """
        try:
            view = _core().utils.StridedMemoryView.from_any_interface(array, stream_ptr=self.handle)
            dtype, shape, strides = view.dtype, tuple(view.shape), view.strides
        except (BufferError, NotImplementedError, TypeError, ValueError) as error:
            raise InputError(f"{name} cannot be read in place", got=str(error).split("\n")[0]) from error
        if not view.is_device_accessible or view.device_id != self._device:
            raise InputError(
                f"{name} is not on the engine's GPU",
                got=f"device {view.device_id}",
                expected=f"device {self._device}",
                fix="move it there, or open the engine with another `device`",
            )
        if strides is not None and not _in_c_order(shape, tuple(strides)):
            raise InputError(
                f"{name} is not contiguous", got=f"strides {list(strides)} of shape {list(shape)}", expected="C order"
            )
        return DeviceArray(int(view.ptr), shape, np.dtype(dtype), bool(view.readonly), view)


class Graph:
    """Recorded work that is queued with one call, made by `Stream.capture`."""

    def __init__(self, graph: Any, stream: Any, device: int) -> None:
        self._graph = graph
        self._stream = stream
        self._device = device

    def launch(self) -> None:
        """Queues the work on the stream that it was recorded on.

        Raises:
            OutOfMemoryError: The GPU has no room for what the driver keeps of it.
        """
        with _allocating("a CUDA graph", f"the memory of GPU {self._device}"):
            self._graph.launch(self._stream)

    def close(self) -> None:
        """Frees it."""
        self._graph.close()


class DeviceBuffer:
    """Memory of a GPU that grows when more is needed, and otherwise keeps its address.

    Attributes:
        address: Its address; 0 before the first `fit`.
        size: Its size in bytes.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffer: Any = None
        self.size = 0
        self.address = 0

    def fit(self, size: int, stream: Stream) -> bool:
        """Makes room for `size` bytes.

        Args:
            size: In bytes.
            stream: The stream that uses the memory; it must be idle.

        Returns:
            Whether the memory has moved, which loses its content.

        Raises:
            OutOfMemoryError: The GPU has no room for it.
        """
        if size <= self.size:
            return False
        self.close()
        with _allocating(f"{size} bytes more", f"the memory of GPU {self._device.index}"):
            self._buffer = _core().Device(self._device.index).allocate(size, stream=stream._stream)
        self.size, self.address = size, int(self._buffer.handle)
        return True

    def close(self) -> None:
        """Frees the memory."""
        if self._buffer is not None:
            self._buffer.close()
        self._buffer, self.size, self.address = None, 0, 0


class PinnedBuffer:
    """Page-locked memory of the host, which the GPU reads and writes by itself; it grows when more is needed."""

    def __init__(self) -> None:
        self._buffer: Any = None
        self._bytes: NDArray[np.uint8] = np.empty(0, np.uint8)

    def fit(self, size: int) -> NDArray[np.uint8]:
        """Returns its first `size` bytes, uint8 [size]; their content is undefined.

        Raises:
            OutOfMemoryError: The host has no room for it that may be locked.
        """
        if size > self._bytes.nbytes:
            self.close()
            with _allocating(f"{size} bytes more", "the host's page-locked memory"):
                self._buffer = _core().LegacyPinnedMemoryResource().allocate(size)
            self._bytes = np.asarray(_Memory(int(self._buffer.handle), size))
        return self._bytes[:size]

    def close(self) -> None:
        """Frees the memory."""
        self._bytes = np.empty(0, np.uint8)
        if self._buffer is not None:
            self._buffer.close()
        self._buffer = None


class _Memory:
    """Bytes at an address, in a form that numpy reads."""

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}


def _in_c_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:  # the stride of an axis of size 1 is never used
            return False
        expected *= size
    return True
