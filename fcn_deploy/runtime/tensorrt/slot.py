"""One stream of a GPU, with all that a call needs on it: execution contexts, buffers, CUDA graphs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.runtime.backend import Array
from fcn_deploy.runtime.tensorrt.cuda import Device, DeviceArray, DeviceBuffer, Graph, PinnedBuffer
from fcn_deploy.runtime.tensorrt.engine import LoadedEngine
from fcn_deploy.runtime.tensorrt.profiles import Dims


@dataclass(frozen=True)
class _Work:
    """What a CUDA graph is captured for: the graph holds these shapes and addresses, and runs no others.

    Attributes:
        profile: Index of the optimisation profile.
        shapes: Shapes of the inputs, by name.
        addresses: Addresses of all tensors, by name.
    """

    profile: int
    shapes: tuple[tuple[str, Dims], ...]
    addresses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class _Captured:
    """A graph and the context that it was captured from, which nothing else may use while the graph lives."""

    context: Any
    graph: Graph


class Slot:
    """A stream, and what runs an engine on it, for one call at a time.

    If the library does not capture CUDA graphs itself, work that comes a second time is captured; its first time was
    the warm-up. Nothing else may use the context of a graph, so each graph has its own. All contexts work in the same
    scratch memory, because nothing runs at the same time on one stream.

    Args:
        engine: What to run.
        device: The GPU. It must be the calling thread's current device, here and in every method.
        graphs: How many graphs are kept; with 0, none is captured.

    Raises:
        ArtifactError: There is not enough memory, or the library cannot make an execution context.
    """

    def __init__(self, engine: LoadedEngine, device: Device, graphs: int) -> None:
        self._engine = engine
        self._graphs_kept = 0 if engine.config is not None else graphs
        self._graphs: OrderedDict[_Work, _Captured] = OrderedDict()
        # Not among the graphs: work on arrays that are at another address each time must not evict these.
        self._seen: OrderedDict[_Work, None] = OrderedDict()
        self._device = {spec.name: DeviceBuffer(device) for spec in (*engine.inputs, *engine.outputs)}
        self._pinned = {spec.name: PinnedBuffer() for spec in (*engine.inputs, *engine.outputs)}
        self._scratch = DeviceBuffer(device)
        self._context: Any = None
        self._set: tuple[int, tuple[tuple[str, Dims], ...]] | None = None
        self._profile = 0
        self._stream = device.stream()
        try:
            self._scratch.fit(engine.scratch, self._stream)
            self._context = engine.make_context(self._scratch.address)
        except BaseException:
            self.close()
            raise

    def infer(self, profile: int, feeds: Mapping[str, Array | DeviceArray]) -> dict[str, Array]:
        """Runs the engine and copies the outputs to the host.

        Args:
            profile: Index of a profile that holds the shapes.
            feeds: An array for each input, of its dtype and a shape of the profile.

        Returns:
            An array for each output, which belongs to the caller.

        Raises:
            ArtifactError: The library or the driver cannot run it.
        """
        shapes = self._shape(profile, feeds)
        moved = [self._device[name].fit(_bytes(spec, shapes[name]), self._stream) for name, spec in self._outputs()]
        addresses = self._upload(feeds, any(moved))
        addresses |= {name: self._device[name].address for name, _ in self._outputs()}
        self._run(profile, feeds, addresses)
        staged = {}
        for name, spec in self._outputs():
            staged[name] = self._pinned[name].fit(_bytes(spec, shapes[name]))
            self._stream.copy_to_host(staged[name], self._device[name].address)
        self._stream.sync()
        return {
            name: staged[name].view(np.dtype(spec.dtype)).reshape(shapes[name]).copy() for name, spec in self._outputs()
        }

    def infer_device(
        self, profile: int, feeds: Mapping[str, Array | DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> None:
        """Runs the engine into arrays on the GPU, and waits until they are written.

        Args:
            profile: Index of a profile that holds the shapes.
            feeds: An array for each input, of its dtype and a shape of the profile.
            outputs: An array for each output, of its dtype.

        Raises:
            ArtifactError: The library or the driver cannot run it.
            InputError: An output does not have the shape that these inputs give.
        """
        shapes = self._shape(profile, feeds)
        for name, array in outputs.items():
            if array.shape != shapes[name]:
                raise InputError(
                    f"output {name} has the wrong shape", got=list(array.shape), expected=list(shapes[name])
                )
        addresses = self._upload(feeds, False)
        addresses |= {name: array.address for name, array in outputs.items()}
        self._run(profile, feeds, addresses)
        self._stream.sync()

    def view(self, name: str, array: object) -> DeviceArray:
        """Views an array on the GPU that the caller owns; see `cuda.Stream.view`."""
        return self._stream.view(name, array)

    def close(self) -> None:
        """Waits for the stream and frees everything: graphs, then contexts, then buffers, then the stream."""
        with ExitStack() as last_to_first:  # if one of them raises, the others are freed all the same
            last_to_first.callback(self._stream.close)
            for close in [self._scratch.close, *(each.close for each in self._device.values())]:
                last_to_first.callback(close)
            for pinned in self._pinned.values():
                last_to_first.callback(pinned.close)
            last_to_first.callback(self._drop_context)
            last_to_first.callback(self._drop_graphs)
            self._stream.sync()

    def _outputs(self) -> list[tuple[str, TensorSpec]]:
        return [(spec.name, spec) for spec in self._engine.outputs]

    def _shape(self, profile: int, feeds: Mapping[str, Array | DeviceArray]) -> dict[str, Dims]:
        """Sets the context to the shapes of the inputs, and returns those of the outputs."""
        shapes = _shapes(feeds)
        if self._set != (profile, shapes):
            self._set = None
            self._profile = self._set_shapes(self._context, self._profile, profile, shapes)
            self._set = (profile, shapes)
        found = {name: tuple(map(int, self._context.get_tensor_shape(name))) for name, _ in self._outputs()}
        for name, shape in found.items():
            if any(size < 0 for size in shape):
                raise ArtifactError(
                    f"the shape of output {name} depends on the values of the inputs",
                    got=list(shape),
                    expected="a size for each axis",
                )
        return found

    def _set_shapes(self, context: Any, current: int, profile: int, shapes: tuple[tuple[str, Dims], ...]) -> int:
        if profile != current:
            done = context.set_optimization_profile_async(profile, self._stream.handle)
            self._engine.require(done, f"cannot switch to profile {profile}")
        for name, shape in shapes:
            self._engine.require(context.set_input_shape(name, shape), f"does not take {name} of {list(shape)}")
        return profile

    def _upload(self, feeds: Mapping[str, Array | DeviceArray], moved: bool) -> dict[str, int]:
        """Copies inputs from the host to the GPU, and returns the address of each input.

        Args:
            feeds: The inputs.
            moved: Whether a buffer whose address is in a graph has moved already.
        """
        for name, array in feeds.items():
            if not isinstance(array, DeviceArray):
                moved = self._device[name].fit(array.nbytes, self._stream) or moved
        if moved:
            self._drop_graphs()  # their addresses are no longer valid
        addresses = {}
        for name, array in feeds.items():
            if isinstance(array, DeviceArray):
                addresses[name] = array.address
                continue
            staged = self._pinned[name].fit(array.nbytes)
            np.copyto(staged.view(array.dtype).reshape(array.shape), array)
            self._stream.copy_to_device(self._device[name].address, staged)
            addresses[name] = self._device[name].address
        return addresses

    def _run(self, profile: int, feeds: Mapping[str, Array | DeviceArray], addresses: Mapping[str, int]) -> None:
        work = _Work(profile, _shapes(feeds), tuple(sorted(addresses.items())))
        if not self._graphs_kept:
            self._enqueue(self._context, work)
            return
        captured = self._graphs.get(work)
        if captured is None and work not in self._seen:
            self._enqueue(self._context, work)
            self._seen[work] = None
            if len(self._seen) > self._graphs_kept:
                self._seen.popitem(last=False)
            return
        if captured is None:
            captured = self._capture(work)
            del self._seen[work]
            self._keep(work, captured)
        self._graphs.move_to_end(work)
        captured.graph.launch()

    def _enqueue(self, context: Any, work: _Work) -> None:
        for name, address in work.addresses:
            self._engine.require(context.set_tensor_address(name, address), f"does not take the address of {name}")
        self._engine.require(context.execute_async_v3(self._stream.handle), "cannot run the engine")

    def _capture(self, work: _Work) -> _Captured:
        context = self._engine.make_context(self._scratch.address)
        self._set_shapes(context, 0, work.profile, work.shapes)
        # The work that a context does only when it runs a shape for the first time cannot be captured.
        self._enqueue(context, work)
        self._stream.sync()
        return _Captured(context, self._stream.capture(lambda: self._enqueue(context, work)))

    def _keep(self, work: _Work, captured: _Captured) -> None:
        self._graphs[work] = captured
        if len(self._graphs) > self._graphs_kept:
            _, oldest = self._graphs.popitem(last=False)
            oldest.graph.close()

    def _drop_graphs(self) -> None:
        graphs, self._graphs = self._graphs, OrderedDict()
        self._seen.clear()
        for captured in graphs.values():
            captured.graph.close()

    def _drop_context(self) -> None:
        self._context = None


def _shapes(feeds: Mapping[str, Array | DeviceArray]) -> tuple[tuple[str, Dims], ...]:
    return tuple((name, tuple(feeds[name].shape)) for name in sorted(feeds))


def _bytes(spec: TensorSpec, shape: Dims) -> int:
    return prod(shape) * np.dtype(spec.dtype).itemsize
