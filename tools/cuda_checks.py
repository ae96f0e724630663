"""Checks of this package's CUDA side on a real GPU: streams, memory, graphs, threads, errors; see `cuda_stand_in`.

Each function in `CHECKS` takes a `Lab`, raises AssertionError with what is wrong, and returns figures, by name.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.core import Device, LegacyPinnedMemoryResource
from numpy.typing import NDArray

from cuda_stand_in import Kernels, Plan, Record, installed, reference
from fcn_deploy.errors import ArtifactError, ClosedError, InputError
from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend

Image = NDArray[np.uint8]
Figures = dict[str, Any]
_MIB = 1 << 20
_GRAPHS_LOG = "fcn_deploy.runtime.tensorrt.graphs"
_POOL_LOG = "fcn_deploy.runtime.tensorrt.pool"


class GpuArray:
    """Memory of a GPU as another library hands it on, by `__cuda_array_interface__` alone.

    Args:
        address: Where it begins.
        shape: The sizes of its axes.
        owner: What keeps the memory alive.
        strides: In bytes; C order if None.
        readonly: Whether it may not be written to.
        stream: The stream whose queued work makes it; None if that is done.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        owner: object,
        *,
        strides: tuple[int, ...] | None = None,
        readonly: bool = False,
        stream: int | None = None,
    ) -> None:
        self.address, self.shape, self.owner = address, shape, owner
        self.__cuda_array_interface__ = {
            "data": (address, readonly),
            "shape": shape,
            "strides": strides,
            "stream": stream,
            "typestr": "|u1",
            "version": 3,
        }

    def read(self) -> Image:
        """Returns a copy of it, once the GPU has done all that it has to do."""
        host = np.empty(self.shape, np.uint8)
        _call(driver.cuCtxSynchronize())
        _call(driver.cuMemcpyDtoH(host.ctypes.data, self.address, host.nbytes))
        return host


@dataclass
class Lab:
    """A GPU, the stand-in on it, and a folder for its plans.

    Attributes:
        device: The GPU, which is current.
        kernels: The stand-in's.
        record: What the stand-in has seen.
        folder: For plans.
        share: The share of all repetitions that is done, 0..1.
    """

    device: Any
    kernels: Kernels
    record: Record
    folder: Path
    share: float = 1.0

    def __post_init__(self) -> None:
        self.stream = self.device.create_stream()
        self._names = count()

    def times(self, repetitions: int) -> range:
        """Returns a range of as many repetitions as are to be done of so many."""
        return range(max(2, round(repetitions * self.share)))

    def open(self, plan: Plan = Plan(), **options: Any) -> TensorRTBackend:  # noqa: B008  # it is frozen
        """Opens a plan."""
        path = self.folder / f"{next(self._names)}.engine"
        path.write_bytes(plan.to_bytes())
        return TensorRTBackend(path, flavor="tensorrt", **options)

    def empty(self, shape: tuple[int, ...], offset: int = 0, **view: Any) -> GpuArray:
        """Returns an array on the GPU, at an offset in bytes from an aligned address."""
        buffer = self.device.allocate(int(np.prod(shape)) + offset, stream=self.stream)
        self.stream.sync()
        return GpuArray(int(buffer.handle) + offset, shape, buffer, **view)

    def put(self, array: Image, offset: int = 0, **view: Any) -> GpuArray:
        """Returns an array on the GPU with the content of one on the host."""
        made = self.empty(array.shape, offset, **view)
        _call(driver.cuMemcpyHtoD(made.address, np.ascontiguousarray(array).ctypes.data, array.nbytes))
        return made


@contextmanager
def lab(folder: Path, share: float = 1.0) -> Iterator[Lab]:
    """Makes the first GPU current and puts the stand-in in TensorRT's place.

    Args:
        folder: For plans.
        share: Of all repetitions, 0..1.
    """
    device = Device(0)
    device.set_current()
    kernels = Kernels(device)
    with installed(kernels) as record:
        yield Lab(device, kernels, record, folder, share)


def photo(height: int = 40, width: int = 56, batch: int = 1, seed: int = 0) -> Image:
    """Returns images, uint8 [N, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def shapes_and_graphs(lab: Lab) -> Figures:
    """Shapes alternate, buffers grow, and graphs are captured, launched and dropped."""
    launched = 0
    for graphs in (0, 1, 4):
        before = lab.record.captured
        with lab.open(graphs=graphs) as backend:
            sizes = (16, 8, 16, 16, 40, 16, 8, 40, 250, 16, 16, 17, 17, 17)
            for repeat in lab.times(20):
                for seed, size in enumerate(sizes):
                    _right(backend, photo(size, size + repeat % 3, 1 + size % 4, seed))
        captured = lab.record.captured - before
        _expect(bool(captured), bool(graphs), "whether graphs were captured")
        launched += captured
    return {"graphs captured": launched}


def profiles_and_scratch(lab: Lab) -> Figures:
    """Scratch memory is that of the profile, and graphs outlive no move of it."""
    plan = Plan(profiles=(((1, 8, 8), (1, 64, 64)), ((1, 65, 8), (8, 512, 512)), ((1, 8, 513), (1, 64, 2048))))
    with lab.open(plan) as backend:
        for repeat in lab.times(30):
            for size in ((64, 64), (64, 64), (512, 512), (64, 64), (64, 64), (64, 2048), (70, 9), (512, 512)):
                _right(backend, photo(*size, seed=repeat))
    return {}


def work_of_other_streams_is_waited_for(lab: Lab) -> Figures:
    """An image that another stream has yet to write is read after that; if the stream is not named, it is not."""
    producer = lab.device.create_stream()
    shape, size = (1, 64, 64, 3), 64 * 64 * 3
    expected = reference(np.full(shape, 9, np.uint8))
    early = 0
    with lab.open() as backend:
        for stream in (int(producer.handle), None):
            for _ in lab.times(20):
                image = lab.put(np.zeros(shape, np.uint8), stream=stream)
                labels = lab.empty(shape[:3])
                lab.kernels.queue(producer, "wait", 1, np.int64(5_000_000))
                lab.kernels.queue(producer, "fill", size, image.address, np.int64(size), np.int32(9))
                backend.infer_device({"image": image}, {"labels": labels})
                right = np.array_equal(labels.read(), expected)
                if stream is not None:
                    _expect(right, True, "whether the image was read after it was written")
                early += stream is None and not right
                producer.sync()
    _expect(early > 0, True, "whether this check can fail, shown by runs that are told of no stream")
    return {"read too early without a stream": early}


def threads_share_an_engine(lab: Lab) -> Figures:
    """8 threads run 500 calls each on 4 contexts, of shapes that alternate."""
    calls = len(lab.times(500))
    images = [photo(*size, seed=seed) for seed, size in enumerate([(16, 16), (64, 80), (256, 200), (33, 9)])]
    expected = [reference(image) for image in images]
    with lab.open(contexts=4) as backend:

        def run(thread: int) -> None:
            for call in range(calls):
                which = (thread + call // 3) % len(images)
                _same(backend.infer({"image": images[which]})["labels"], expected[which])

        begin = time.perf_counter()
        _in_threads(run, 8)
        seconds = time.perf_counter() - begin
    return {"calls per second": round(8 * calls / seconds)}


def a_refused_run_breaks_nothing(lab: Lab) -> Figures:
    """A run that fails between two kernels is an error, and the next one is right."""
    first = lab.record.runs
    refused = tuple(first + number for number in (1, 4, 7, 8))
    with lab.open(Plan(refuse=refused), graphs=0) as backend:
        errors = 0
        for seed in range(12):
            try:
                _right(backend, photo(seed=seed))
            except ArtifactError as error:
                _expect("is refused" in str(error), True, f"the library's words in {error}")
                errors += 1
    _expect(errors, len(refused), "errors")
    return {}


def a_capture_that_fails_is_done_without(lab: Lab) -> Figures:
    """An engine that cannot be captured runs, and one warning says so."""
    with _warnings(_GRAPHS_LOG) as said, lab.open(Plan(capture=False)) as backend:
        for seed in range(6):
            _right(backend, photo(seed=seed))
        _in_threads(lambda thread: [_right(backend, photo(seed=thread)) for _ in range(20)], 4)
    _expect(len(said), 1, f"warnings: {said}")
    return {"warning": said[0]}


def closing_waits(lab: Lab) -> Figures:
    """A backend that is closed while threads call it gives right labels or ClosedError, and nothing else."""
    closed = 0
    for _ in lab.times(10):
        backend = lab.open(Plan(wait=200_000), contexts=3)
        started = threading.Barrier(7)

        def call(thread: int, backend: TensorRTBackend = backend, started: threading.Barrier = started) -> bool:
            started.wait()
            try:
                while True:
                    _right(backend, photo(seed=thread))
            except ClosedError:
                return True

        with ThreadPoolExecutor(6) as threads:
            futures = [threads.submit(call, thread) for thread in range(6)]
            started.wait()
            time.sleep(0.02)
            backend.close()
            closed += sum(future.result() for future in futures)
    return {"calls ended by closing": closed}


def arrays_as_they_come(lab: Lab) -> Figures:
    """Arrays that are not aligned, not contiguous, read-only, or too small."""
    image = photo()
    with lab.open() as backend:
        for offset in (0, 1, 3, 4, 128, 255, 256):
            for _ in range(3):
                source = lab.put(image, offset)
                _same(backend.infer({"image": source})["labels"], reference(image))
                target = lab.empty(image.shape[:3], offset)
                backend.infer_device({"image": source}, {"labels": target})
                _same(target.read(), reference(image))
        read_only = lab.put(image, readonly=True)
        _same(backend.infer({"image": read_only})["labels"], reference(image))
        every_second = lab.put(image)
        every_second = GpuArray(
            every_second.address, (1, 20, 56, 3), every_second, strides=(40 * 56 * 3, 2 * 56 * 3, 3, 1)
        )
        labels = lab.empty(image.shape[:3])
        for what, call in {
            "not contiguous": lambda: backend.infer({"image": every_second}),
            "cannot be written": lambda: backend.infer_device(
                {"image": image}, {"labels": lab.empty(image.shape[:3], readonly=True)}
            ),
            "wrong shape": lambda: backend.infer_device({"image": image[:, :20]}, {"labels": labels}),
        }.items():
            try:
                call()
            except InputError as error:
                _expect(what in str(error), True, f"{what} in: {error}")
            else:
                raise AssertionError(f"no error: {what}")
        _right(backend, image)
    return {}


def page_locked_arrays(lab: Lab) -> Figures:
    """Arrays of the host in page-locked memory are copied from where they are: faster, and as right."""
    image = photo(1024, 1024, 4)
    buffer = LegacyPinnedMemoryResource().allocate(image.nbytes)
    locked = np.frombuffer(_bytes_at(int(buffer.handle), image.nbytes), np.uint8).reshape(image.shape)
    locked[...] = image
    figures = {}
    with lab.open(Plan(profiles=(((1, 8, 8), (4, 1024, 1024)),))) as backend:
        for name, array in {"pageable": image, "page-locked": locked}.items():
            for _ in range(3):
                _same(backend.infer({"image": array})["labels"], reference(image))
            figures[f"ms, {name}"] = _median_ms(lambda array=array: backend.infer({"image": array}), lab)
    return figures


def a_full_gpu_makes_calls_wait(lab: Lab) -> Figures:
    """With room for two contexts, calls of 8 threads wait for each other; with room for none, they fail."""
    image = photo(2048, 2048, 4)  # 16 MiB of labels, 48 of image, 64 of scratch
    expected = reference(image)
    plan = Plan(profiles=(((1, 8, 8), (4, 2048, 2048)),))
    needed = 4 * 2048 * 2048 * (1 + 3 + 4)
    with _little_memory(2 * needed + needed // 2), _warnings(_POOL_LOG) as said, lab.open(plan) as backend:

        def run(thread: int) -> None:
            for _ in lab.times(6):
                _same(backend.infer({"image": image})["labels"], expected)

        _in_threads(run, 8)
        limit = backend._slots._limit
    _expect(limit in (1, 2), True, f"calls at the same time: {limit}")
    # Enough for the scratch memory of 64 MiB and a small image; not for the 48 MiB of this one.
    with _little_memory(104 * _MIB), lab.open(plan) as backend:
        try:
            backend.infer({"image": image})
        except ArtifactError as error:
            _expect("is full" in str(error), True, f"what is said: {error}")
        else:
            raise AssertionError("there was room after all")
        _right(backend, photo())
    return {"calls at the same time": limit, "warnings": len(said)}


def the_time_is_that_of_the_gpu(lab: Lab) -> Figures:
    """A call ends when the GPU has: not before, and little later."""
    figures = {}
    image, labels = lab.put(photo(64, 64)), lab.empty((1, 64, 64))
    for wait in (0, 3_000_000):
        for graphs in (0, 4):
            with lab.open(Plan(wait=wait), graphs=graphs) as backend:
                run = lambda backend=backend: backend.infer_device({"image": image}, {"labels": labels})  # noqa: E731
                wall = _median_ms(run, lab)
            _expect(wall >= wait / 1e6, True, f"a call that takes {wait / 1e6} ms on the GPU took {wall}")
            _expect(wall < wait / 1e6 + 2, True, f"a call that takes {wait / 1e6} ms on the GPU took {wall}")
            figures[f"ms of a call beside {wait / 1e6:.0f} ms on the GPU, {graphs} graphs"] = round(
                wall - wait / 1e6, 4
            )
    return figures


def opened_and_closed_often(lab: Lab) -> Figures:
    """Memory of the GPU, threads and the caller's context are what they were before."""
    before = _call(driver.cuCtxGetCurrent())
    pool = _call(driver.cuDeviceGetMemPool(_call(driver.cuDeviceGet(0))))
    _call(driver.cuMemPoolTrimTo(pool, 0))
    begin = _free_memory()
    free = []
    for _ in lab.times(100):
        with lab.open() as backend:
            for _ in range(3):
                _right(backend, photo(256, 256, 4))
        gc.collect()
        free.append(_free_memory())
    _expect(int(_call(driver.cuCtxGetCurrent())), int(before), "the current context")
    lost = free[1] - free[-1]
    _expect(lost <= 4 * _MIB, True, f"bytes lost: {lost}")
    return {"bytes lost": lost, "bytes kept for the next one": begin - free[-1]}


def a_wild_write_ends_in_an_error(lab: Lab) -> Figures:
    """After a fault on the GPU every call is an error that says so, and the process ends by itself."""
    path = lab.folder / "wild.engine"
    path.write_bytes(Plan(trespass=2).to_bytes())
    code = f"from pathlib import Path; import cuda_checks; cuda_checks._wild(Path({str(path)!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(each).resolve()) for each in sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    _expect(ended.returncode, 0, f"exit code; {ended.stderr[-2000:]}")
    return {"error": ended.stdout.strip().split("\n")[-1][:200]}


def _wild(path: Path) -> None:
    with lab(path.parent):
        backend = TensorRTBackend(path, flavor="tensorrt", graphs=0)
        _right(backend, photo())
        said = []
        for _ in range(3):
            try:
                _right(backend, photo())
            except ArtifactError as error:
                said.append(str(error.got))
        _expect(len(said), 3, f"errors: {said}")
        try:
            backend.close()
        except Exception as error:
            print(f"closing: {error}")
        print(said[0])


def arrays_of_other_libraries(lab: Lab) -> Figures:
    """PyTorch's and CuPy's arrays are read after the work that their streams have queued; if they are installed."""
    found = {}
    for name, check in {"torch": _torch, "cupy": _cupy}.items():
        try:
            __import__(name)
        except ImportError:
            found[name] = "not installed"
            continue
        found[name] = check(lab)
    return found


def _torch(lab: Lab) -> str:
    import torch

    image = photo(64, 64)
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with lab.open() as backend:
        for stream in (torch.cuda.default_stream(), side):
            for seed in lab.times(20):
                fresh = torch.from_numpy(photo(64, 64, seed=seed)).pin_memory()
                with torch.cuda.stream(stream):
                    tensor = torch.zeros(image.shape, dtype=torch.uint8, device="cuda")
                    torch.cuda._sleep(5_000_000)
                    tensor.copy_(fresh, non_blocking=True)
                    labels = torch.empty(image.shape[:3], dtype=torch.uint8, device="cuda")
                    backend.infer_device({"image": tensor}, {"labels": labels})
                _same(labels.cpu().numpy(), reference(fresh.numpy()))
                _same(backend.infer({"image": fresh})["labels"], reference(fresh.numpy()))  # page-locked
                pair = torch.cat([tensor.view(-1), tensor.view(-1)[:3], tensor.view(-1)])
                second = pair[-image.size :].view(image.shape)  # not aligned
                _same(backend.infer({"image": second})["labels"], reference(fresh.numpy()))
    return f"{torch.__version__}, right"


def _cupy(lab: Lab) -> str:
    import cupy

    with lab.open() as backend:
        for seed in lab.times(20):
            image = photo(64, 64, seed=seed)
            with cupy.cuda.Stream(non_blocking=True):
                array = cupy.asarray(image)
                labels = cupy.empty(image.shape[:3], cupy.uint8)
                backend.infer_device({"image": array}, {"labels": labels})
                _same(labels.get(), reference(image))
    return f"{cupy.__version__}, right"


CHECKS: dict[str, Callable[[Lab], Figures]] = {
    check.__name__: check
    for check in (
        shapes_and_graphs,
        profiles_and_scratch,
        work_of_other_streams_is_waited_for,
        threads_share_an_engine,
        a_refused_run_breaks_nothing,
        a_capture_that_fails_is_done_without,
        closing_waits,
        arrays_as_they_come,
        page_locked_arrays,
        a_full_gpu_makes_calls_wait,
        the_time_is_that_of_the_gpu,
        opened_and_closed_often,
        a_wild_write_ends_in_an_error,
        arrays_of_other_libraries,
    )
}


def run_check(name: str, lab: Lab) -> Figures:
    """Runs one check, after which the stand-in must have seen nothing that a real library would not take.

    Raises:
        AssertionError: What is wrong.
    """
    lab.record.violations.clear()
    figures = CHECKS[name](lab)
    _expect(lab.record.violations, [], "violations")
    return figures


def _right(backend: TensorRTBackend, image: Image) -> None:
    _same(backend.infer({"image": image})["labels"], reference(image))


def _same(labels: NDArray[Any], expected: Image) -> None:
    _expect(labels.shape, expected.shape, "the shape of the labels")
    wrong = int(np.count_nonzero(labels != expected))
    _expect(wrong, 0, f"wrong labels of {expected.size}")


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: got {found}, expected {expected}")


def _in_threads(run: Callable[[int], object], number: int) -> None:
    with ThreadPoolExecutor(number) as threads:
        for future in [threads.submit(run, thread) for thread in range(number)]:
            future.result()


def _median_ms(run: Callable[[], object], lab: Lab) -> float:
    times = []
    for _ in range(5):
        run()
    for _ in lab.times(100):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return round(float(np.median(times)) * 1000, 4)


@contextmanager
def _warnings(name: str) -> Iterator[list[str]]:
    """Collects the warnings of a module of the package."""
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Listening(logging.WARNING)
    logging.getLogger(name).addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger(name).removeHandler(handler)


@contextmanager
def _little_memory(left: int) -> Iterator[None]:
    """Takes all of the GPU's memory but `left` bytes."""
    pool = _call(driver.cuDeviceGetMemPool(_call(driver.cuDeviceGet(0))))
    _call(driver.cuMemPoolTrimTo(pool, 0))
    taken = _call(driver.cuMemAlloc(_free_memory() - left))
    try:
        yield
    finally:
        _call(driver.cuMemFree(taken))


def _free_memory() -> int:
    status, free, _ = driver.cuMemGetInfo()
    _expect(status, driver.CUresult.CUDA_SUCCESS, "cuMemGetInfo")
    return int(free)


def _bytes_at(address: int, size: int) -> Any:
    import ctypes

    return (ctypes.c_ubyte * size).from_address(address)


def _call(result: tuple[Any, ...]) -> Any:
    status, *values = result
    _expect(status, driver.CUresult.CUDA_SUCCESS, "the driver's answer")
    return values[0] if values else None
