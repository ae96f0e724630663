"""One stream of a GPU, with all that a call needs on it: an execution context, buffers, CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from math import prod

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.errors import InputError
from fcn_deploy.runtime.backend import Array
from fcn_deploy.runtime.tensorrt.context import Context, Shapes
from fcn_deploy.runtime.tensorrt.cuda import Device, DeviceArray, DeviceBuffer, Graph, PinnedBuffer, is_pinned
from fcn_deploy.runtime.tensorrt.engine import ALIGNMENT, LoadedEngine
from fcn_deploy.runtime.tensorrt.graphs import Captured, GraphCache, GraphLimit, Work
from fcn_deploy.runtime.tensorrt.profiles import Dims


class Slot:
    """A stream, and what runs an engine on it, for one call at a time.

    If the library does not capture CUDA graphs itself, work that comes a second time is captured. Nothing else may use
    the context of a graph, so each graph has its own.

    Args:
        engine: What to run.
        device: The GPU. It must be the calling thread's current device, here and in every method.
        graphs: How many graphs are kept.

    Raises:
        ArtifactError: The library cannot make an execution context.
        OutOfMemoryError: The GPU is full.
    """

    def __init__(self, engine: LoadedEngine, device: Device, graphs: GraphLimit) -> None:
        self._engine = engine
        self._limit = graphs
        self._graphs = GraphCache(graphs)
        self._device = {spec.name: DeviceBuffer(device) for spec in (*engine.inputs, *engine.outputs)}
        self._pinned = {spec.name: PinnedBuffer() for spec in (*engine.inputs, *engine.outputs)}
        self._scratch = DeviceBuffer(device)
        self._context: Context
        self._stream = device.stream()
        try:
            self._context = Context(engine, self._stream, self._scratch)
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
        shapes = _shapes(profile, feeds)
        sizes = self._set(shapes)
        outputs = {spec.name: _bytes(spec, sizes[spec.name]) for spec in self._engine.outputs}
        self._fit({**_copied(feeds), **outputs})
        addresses = self._upload(feeds)
        self._run(shapes, addresses | {name: self._device[name].address for name in outputs})
        staged = {}
        for name, size in outputs.items():
            staged[name] = self._pinned[name].fit(size)
            self._stream.copy_to_host(staged[name], self._device[name].address)
        self._stream.sync()
        return {
            spec.name: staged[spec.name].view(np.dtype(spec.dtype)).reshape(sizes[spec.name]).copy()
            for spec in self._engine.outputs
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
        shapes = _shapes(profile, feeds)
        sizes = self._set(shapes)
        for name, array in outputs.items():
            if array.shape != sizes[name]:
                raise InputError(
                    f"output {name} has the wrong shape", got=list(array.shape), expected=list(sizes[name])
                )
        own = _copied(outputs)
        self._fit({**_copied(feeds), **own})
        addresses = self._upload(feeds)
        for name, array in outputs.items():
            addresses[name] = self._device[name].address if name in own else array.address
        self._run(shapes, addresses)
        for name, size in own.items():
            self._stream.copy_on_device(outputs[name].address, self._device[name].address, size)
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
            last_to_first.callback(self._graphs.clear)
            self._stream.sync()

    def _set(self, shapes: Shapes) -> dict[str, Dims]:
        """Sets the context to the shapes of the inputs, and returns those of the outputs."""
        if self._scratch.fit(self._engine.scratch(shapes.profile), self._stream):
            self._graphs.clear()
        self._context.set(shapes)
        return self._context.output_shapes()

    def _fit(self, sizes: Mapping[str, int]) -> None:
        """Makes room for tensors, by name and bytes."""
        moved = [self._device[name].fit(size, self._stream) for name, size in sizes.items()]
        if any(moved):
            self._graphs.clear()

    def _upload(self, feeds: Mapping[str, Array | DeviceArray]) -> dict[str, int]:
        """Copies the inputs that cannot be read where they are, and returns the address of each input."""
        addresses = {}
        for name, array in feeds.items():
            address = addresses[name] = self._device[name].address
            if not isinstance(array, DeviceArray):
                self._stream.copy_to_device(address, array if is_pinned(array) else self._staged(name, array))
            elif _aligned(array):
                addresses[name] = array.address
            else:
                self._stream.copy_on_device(address, array.address, array.nbytes)
        return addresses

    def _staged(self, name: str, array: Array) -> Array:
        staged = self._pinned[name].fit(array.nbytes)
        np.copyto(staged.view(array.dtype).reshape(array.shape), array)
        return staged

    def _run(self, shapes: Shapes, addresses: Mapping[str, int]) -> None:
        work = Work(shapes, tuple(sorted(addresses.items())))
        graph = self._graphs.find(work)
        if graph is None and self._graphs.due(work):
            graph = self._capture(work)
        if graph is not None:
            graph.launch()
        else:
            self._context.enqueue(addresses)

    def _capture(self, work: Work) -> Graph | None:
        """Captures some work; None if that fails."""
        addresses = dict(work.addresses)
        try:
            context = Context(self._engine, self._stream, self._scratch)
            context.set(work.shapes)
            # What a context does only when it runs a shape for the first time cannot be captured.
            context.enqueue(addresses)
            self._stream.sync()
            captured = Captured(context, self._stream.capture(lambda: context.enqueue(addresses)))
        except Exception as error:
            # If more is broken than the capture, the work fails without a graph, too, and that error is raised.
            self._limit.give_up(error)
            return None
        self._graphs.keep(work, captured)
        return captured.graph

    def _drop_context(self) -> None:
        vars(self).pop("_context", None)  # missing if the library could not make it


def _shapes(profile: int, feeds: Mapping[str, Array | DeviceArray]) -> Shapes:
    return Shapes(profile, tuple((name, tuple(feeds[name].shape)) for name in sorted(feeds)))


def _copied(arrays: Mapping[str, Array | DeviceArray]) -> dict[str, int]:
    """Returns the bytes of the arrays that the engine cannot read or write where they are, by name."""
    return {
        name: array.nbytes for name, array in arrays.items() if not (isinstance(array, DeviceArray) and _aligned(array))
    }


def _aligned(array: DeviceArray) -> bool:
    return array.address % ALIGNMENT == 0


def _bytes(spec: TensorSpec, shape: Dims) -> int:
    return prod(shape) * np.dtype(spec.dtype).itemsize
