"""The engine that a TensorRT library has loaded from a plan: its tensors, its profiles, its execution contexts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime.tensorrt.cuda import OutOfMemoryError, is_out_of_memory
from fcn_deploy.runtime.tensorrt.log import LibraryLog
from fcn_deploy.runtime.tensorrt.profiles import Dims, Profile, ShapeRange

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}

# NvInferRuntime.h, IExecutionContext::setTensorAddress: the address of a tensor is a multiple of this.
ALIGNMENT = 256

# A plan has no names of dimensions; these are the exported model's.
_DIMENSIONS = {
    ("image", "uint8"): ("batch", "height", "width", "channels"),
    ("image", "float32"): ("batch", "channels", "height", "width"),
    ("logits", "float32"): ("batch", "channels", "height", "width"),
    ("labels", "uint8"): ("batch", "height", "width"),
    ("labels", "int32"): ("batch", "height", "width"),
}


@dataclass(frozen=True, eq=False)
class LoadedEngine:
    """An engine in memory, as the runtime works with it.

    Attributes:
        module: The library.
        log: The library's log, which has the reasons for its errors.
        config: How contexts run, if the library has that; otherwise None. It stands before the engine that it belongs
            to, so that it is freed first.
        cuda_engine: The library's ICudaEngine.
        inputs: The engine's inputs.
        outputs: Its outputs.
        profiles: Its optimisation profiles, at least one.
    """

    module: Any
    log: LibraryLog
    config: Any
    cuda_engine: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]

    def configured(self, config: Any) -> LoadedEngine:
        """Returns the same engine, whose contexts run as a config says."""
        return replace(self, config=config)

    def scratch(self, profile: int) -> int:
        """Returns the bytes of device memory that a context works in with a profile; 0 if contexts allocate it."""
        if self.config is not None:
            return 0
        if not self.cuda_engine.num_optimization_profiles:
            return max(1, int(self.cuda_engine.device_memory_size_v2))
        return max(1, int(self.cuda_engine.get_device_memory_size_for_profile_v2(profile)))

    def make_context(self) -> Any:
        """Makes an execution context of the library.

        Raises:
            ArtifactError: The library cannot make one.
            OutOfMemoryError: The GPU has no room for it.
        """
        if self.config is not None:
            context = self.cuda_engine.create_execution_context(self.config)
        else:
            strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self.cuda_engine.create_execution_context(strategy)
        if context is None:
            raise self._error("cannot make an execution context")
        return context

    def require(self, done: bool, what: str) -> None:
        """Raises an error if a call of the library has failed.

        Args:
            done: What the call returned.
            what: What failed, as a predicate: the message begins with the library's name.

        Raises:
            ArtifactError: `done` is False.
            OutOfMemoryError: `done` is False because the GPU is full.
        """
        if not done:
            raise self._error(what)

    def _error(self, what: str) -> ArtifactError:
        reason = self.log.take_own_errors()
        kind = OutOfMemoryError if is_out_of_memory(reason) else ArtifactError
        return kind(f"{self.module.__name__} {what}", got=reason)


def describe_engine(module: Any, engine: Any, log: LibraryLog) -> LoadedEngine:
    """Reads the inputs, outputs and profiles of an engine.

    Args:
        module: The library.
        engine: Its ICudaEngine.
        log: The library's log.

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
    if not profiles:  # an engine whose shapes are all fixed may have none
        fixed = {name: _shape(engine.get_tensor_shape(name)) for name in inputs}
        profiles = ({name: ShapeRange(shape, shape, shape) for name, shape in fixed.items()},)
    specs = {name: _spec(module, engine, name, profiles) for name in names}
    return LoadedEngine(
        module=module,
        log=log,
        config=None,
        cuda_engine=engine,
        inputs=tuple(specs[name] for name in inputs),
        outputs=tuple(specs[name] for name in names if name not in inputs),
        profiles=profiles,
    )


def _range(shapes: Any) -> ShapeRange:
    low, best, high = (_shape(shape) for shape in shapes)
    return ShapeRange(low, best, high)


def _shape(dims: Any) -> Dims:
    return tuple(int(size) for size in dims)


def _spec(module: Any, engine: Any, name: str, profiles: tuple[Profile, ...]) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    # By the description: the lean runtime has no TensorFormat.
    linear = engine.get_tensor_format_desc(name).startswith("Row major linear")
    on_device = engine.get_tensor_location(name) == module.TensorLocation.DEVICE
    if kind not in _DTYPES or not linear or not on_device:
        what = kind if kind not in _DTYPES else "a vectorised layout" if not linear else "a tensor in host memory"
        raise ArtifactError(
            f"this runtime cannot feed or read tensor {name} of the engine",
            got=what,
            expected=f"{', '.join(_DTYPES)} in C order on the device",
            fix="build the engine with fcn-deploy build-engine",
        )
    dtype = _DTYPES[kind]
    sizes = _shape(engine.get_tensor_shape(name))
    dimensions = _DIMENSIONS.get((name, dtype), ())
    if len(dimensions) != len(sizes):
        dimensions = tuple(f"axis {axis}" for axis in range(len(sizes)))
    # A dynamic axis for which all profiles have one and the same size is a fixed one for the caller.
    ends = [size for profile in profiles if name in profile for size in (profile[name].min, profile[name].max)]
    shape: tuple[int | str, ...] = tuple(
        size if size >= 0 else next(iter(found)) if len(found := {end[axis] for end in ends}) == 1 else dimensions[axis]
        for axis, size in enumerate(sizes)
    )
    return TensorSpec(name, dtype, shape)
