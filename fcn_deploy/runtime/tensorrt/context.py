"""An execution context of a TensorRT library, and what it is set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime.tensorrt.cuda import DeviceBuffer, Stream
from fcn_deploy.runtime.tensorrt.engine import LoadedEngine
from fcn_deploy.runtime.tensorrt.profiles import Dims


@dataclass(frozen=True)
class Shapes:
    """The shapes to run an engine with.

    Attributes:
        profile: Index of an optimisation profile that holds them.
        inputs: The inputs by name, in the order of names.
    """

    profile: int
    inputs: tuple[tuple[str, Dims], ...]


class Context:
    """One execution context, which only one call may use at a time.

    It works in scratch memory that contexts on one stream share, because nothing runs at the same time on a stream.
    TensorRT-RTX's contexts allocate their own.

    Args:
        engine: What it runs.
        stream: The stream that it runs on.
        scratch: The memory that it works in; whoever owns it keeps it large enough for the profile that is set.

    Raises:
        ArtifactError: The library cannot make one.
    """

    def __init__(self, engine: LoadedEngine, stream: Stream, scratch: DeviceBuffer) -> None:
        self._engine = engine
        self._stream = stream
        self._scratch = scratch
        self._context: Any = engine.make_context()
        self._profile = 0
        self._set: Shapes | None = None
        self._works_in: tuple[int, int] | None = None

    def set(self, shapes: Shapes) -> None:
        """Sets profile, scratch memory and shapes, as far as they are not set already.

        Raises:
            ArtifactError: The library refuses them.
        """
        works_in = (self._scratch.address, self._scratch.size)
        if self._set == shapes and self._works_in == works_in:
            return
        self._set = None
        if shapes.profile != self._profile:
            done = self._context.set_optimization_profile_async(shapes.profile, self._stream.handle)
            self._engine.require(done, f"cannot switch to profile {shapes.profile}")
            self._profile = shapes.profile
        if self._scratch.size:
            self._context.set_device_memory(*works_in)
        self._works_in = works_in
        for name, shape in shapes.inputs:
            self._engine.require(self._context.set_input_shape(name, shape), f"does not take {name} of {list(shape)}")
        self._set = shapes

    def output_shapes(self) -> dict[str, Dims]:
        """Returns the shapes of the outputs, by name, that the shapes of the inputs give.

        Raises:
            ArtifactError: They depend on the values of the inputs.
        """
        found = {spec.name: tuple(map(int, self._context.get_tensor_shape(spec.name))) for spec in self._engine.outputs}
        for name, shape in found.items():
            if any(size < 0 for size in shape):
                raise ArtifactError(
                    f"the shape of output {name} depends on the values of the inputs",
                    got=list(shape),
                    expected="a size for each axis",
                )
        return found

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """Queues one run on the stream.

        Args:
            addresses: Of every input and output, by name, each a multiple of `engine.ALIGNMENT`.

        Raises:
            ArtifactError: The library cannot run it.
        """
        for name, address in addresses.items():
            self._engine.require(
                self._context.set_tensor_address(name, address), f"does not take the address of {name}"
            )
        self._engine.require(self._context.execute_async_v3(self._stream.handle), "cannot run the engine")
