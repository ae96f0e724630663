"""A plan that a TensorRT library has loaded: its tensors, its profiles, and the execution contexts made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime.tensorrt.log import LibraryLog
from fcn_deploy.runtime.tensorrt.profiles import Profile, Shape, ShapeRange

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}

# Plans carry no names of dimensions; these are what the exported model calls them.
_DIMENSIONS = {
    ("image", "uint8"): ("batch", "height", "width", "channels"),
    ("image", "float32"): ("batch", "channels", "height", "width"),
    ("logits", "float32"): ("batch", "channels", "height", "width"),
    ("labels", "uint8"): ("batch", "height", "width"),
    ("labels", "int32"): ("batch", "height", "width"),
}


@dataclass(frozen=True, eq=False)
class Plan:
    """What of a loaded plan the runtime works with.

    Attributes:
        module: The library.
        log: Where the library's reasons are.
        config: How contexts run, where the library captures CUDA graphs itself; else None. Before the engine it
            belongs to, so that it is freed first.
        engine: Its ICudaEngine.
        inputs: The plan's inputs.
        outputs: Its outputs.
        profiles: Its optimisation profiles, at least one.
    """

    module: Any
    log: LibraryLog
    config: Any
    engine: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]

    @property
    def scratch(self) -> int:
        """Bytes of device memory that a context works in; 0 where contexts bring their own."""
        return 0 if self.config is not None else max(1, int(self.engine.device_memory_size_v2))

    def make_context(self, scratch: int) -> Any:
        """Makes an execution context.

        Args:
            scratch: Address of the memory it works in; contexts on one stream may share it.

        Raises:
            ArtifactError: The library cannot make one.
        """
        if self.config is not None:
            context = self.engine.create_execution_context(self.config)
        else:
            strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self.engine.create_execution_context(strategy)
        if context is None:
            raise ArtifactError("the library cannot make an execution context", got=self.log.take_errors())
        if self.config is None:
            context.set_device_memory(scratch, self.scratch)
        return context

    def require(self, done: bool, what: str) -> None:
        """Turns the False of a library's call into an error.

        Raises:
            ArtifactError: It is False.
        """
        if not done:
            raise ArtifactError(f"{self.module.__name__} {what}", got=self.log.take_errors())


def describe(module: Any, engine: Any, log: LibraryLog, config: Any) -> Plan:
    """Reads what a loaded plan takes and gives.

    Raises:
        ArtifactError: It has tensors that this runtime cannot feed or read.
    """
    modes = module.TensorIOMode
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == modes.INPUT]
    profiles = tuple(
        {name: _range(engine.get_tensor_profile_shape(name, index)) for name in inputs}
        for index in range(engine.num_optimization_profiles)
    )
    if not profiles:  # of a plan whose shapes are all fixed
        fixed = {name: _shape(engine.get_tensor_shape(name)) for name in inputs}
        profiles = ({name: ShapeRange(shape, shape, shape) for name, shape in fixed.items()},)
    specs = {name: _spec(module, engine, name, profiles) for name in names}
    return Plan(
        module=module,
        log=log,
        config=config,
        engine=engine,
        inputs=tuple(specs[name] for name in inputs),
        outputs=tuple(specs[name] for name in names if name not in inputs),
        profiles=profiles,
    )


def _range(shapes: Any) -> ShapeRange:
    low, best, high = (_shape(shape) for shape in shapes)
    return ShapeRange(low, best, high)


def _shape(dims: Any) -> Shape:
    return tuple(int(size) for size in dims)


def _spec(module: Any, engine: Any, name: str, profiles: tuple[Profile, ...]) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    linear = engine.get_tensor_format(name) == module.TensorFormat.LINEAR
    on_device = engine.get_tensor_location(name) == module.TensorLocation.DEVICE
    if kind not in _DTYPES or not linear or not on_device:
        what = kind if kind not in _DTYPES else "a vectorised layout" if not linear else "a tensor of the host"
        raise ArtifactError(
            f"tensor {name} of the plan cannot be fed or read",
            got=what,
            expected=f"{', '.join(_DTYPES)} in C order on the device",
            fix="build the plan with fcn-deploy build-engine",
        )
    dtype = _DTYPES[kind]
    sizes = _shape(engine.get_tensor_shape(name))
    dimensions = _DIMENSIONS.get((name, dtype), ())
    if len(dimensions) != len(sizes):
        dimensions = tuple(f"axis {axis}" for axis in range(len(sizes)))
    # A dynamic axis of which every profile takes one and the same size is a fixed one to whoever feeds the plan.
    ends = [size for profile in profiles if name in profile for size in (profile[name].min, profile[name].max)]
    shape: tuple[int | str, ...] = tuple(
        size if size >= 0 else next(iter(found)) if len(found := {end[axis] for end in ends}) == 1 else dimensions[axis]
        for axis, size in enumerate(sizes)
    )
    return TensorSpec(name, dtype, shape)
