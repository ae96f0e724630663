"""A plan of TensorRT or TensorRT-RTX as a Backend; one code path for both libraries and for TensorRT-lean."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import Sidecar, find_sidecar, load_sidecar
from fcn_deploy.errors import ArtifactError, DependencyError, FcnDeployError, InputError, UsageError
from fcn_deploy.files import StrPath, as_path, check_file, read_bytes
from fcn_deploy.runtime.backend import Array, Closable, backend_closed, check_feeds
from fcn_deploy.runtime.tensorrt.compatibility import (
    check_gpu,
    check_host_code,
    check_supported,
    check_version,
    choose_flavor,
    rebuild_command,
)
from fcn_deploy.runtime.tensorrt.cuda import Device, DeviceArray, is_device_array, pinned_array
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.engine import LoadedEngine, describe_engine
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.graphs import GraphLimit
from fcn_deploy.runtime.tensorrt.kernel_cache import KernelCache
from fcn_deploy.runtime.tensorrt.log import LibraryLog, library_log
from fcn_deploy.runtime.tensorrt.pool import Pool
from fcn_deploy.runtime.tensorrt.profiles import choose_profile
from fcn_deploy.runtime.tensorrt.settings import (
    CONTEXTS,
    GRAPHS,
    Specialization,
    check_counts,
    check_specialization,
    choose_specialization,
)
from fcn_deploy.runtime.tensorrt.slot import Slot

_log = logging.getLogger(__name__)

R = TypeVar("R")


class TensorRTBackend(Closable):
    """A Backend that runs a plan on a GPU.

    Calls from several threads run at the same time, each on a stream and in an execution context of its own, which are
    made when first needed. Device memory and pinned host memory grow with the largest shape and are then used again.
    CUDA graphs are captured by the library itself if it can; otherwise work is captured when it comes a second time.

    Args:
        engine: An `.engine` or `.plan` file.
        device: Index of the GPU; 0 if None.
        flavor: The library that runs the plan, such as `tensorrt-rtx`. If None, the one that built it, as the sidecar
            says, or, if that is not installed, another that runs its plans. Needed if there is no sidecar.
        allow_host_code: Lets the plan run code on the host, which plans built with `version_compatible=True` bring.
        contexts: How many calls run at the same time, at least 1; others wait. 8 if None, or fewer if the GPU has no
            room for so many.
        graphs: How many CUDA graphs each of them keeps, at least 0; 4 if None. With 0 the library captures none either.
            After a capture that fails, which is logged as a warning, work runs without graphs.
        specialization: When TensorRT-RTX compiles kernels for a shape of the images; see `Specialization`. If None,
            `eager` for an engine of fixed shapes, `lazy` for one that takes ranges.

    Attributes:
        inputs: The plan's inputs.
        outputs: The plan's outputs.
        metadata: Empty, because a plan carries none: its sidecar says what it is.
        version: The library's version.

    Raises:
        ArtifactError: Plan, sidecar, library and GPU do not fit together, or the plan is corrupt.
        DependencyError: The driver, the GPU or the library is missing.
        InputError: The file does not exist.
        UsageError: `flavor`, `contexts`, `graphs` or `specialization` has a bad value, or the library that runs the
            plan does not specialise kernels.
    """

    def __init__(
        self,
        engine: StrPath,
        *,
        device: int | None = None,
        flavor: str | None = None,
        allow_host_code: bool = False,
        contexts: int | None = None,
        graphs: int | None = None,
        specialization: Specialization | None = None,
    ) -> None:
        path = as_path(engine)
        check_file(path, pipe=False)
        check_counts(contexts, graphs)
        contexts = CONTEXTS if contexts is None else int(contexts)
        graphs = GRAPHS if graphs is None else int(graphs)
        check_specialization(specialization)
        self._slots: Pool[Slot] = Pool(self._make_slot, Slot.close, contexts)
        # With `flavor`, a plan from another tool runs without a sidecar; but a sidecar that exists is always obeyed.
        known = load_sidecar(path) if find_sidecar(path) is not None else None
        chosen = choose_flavor(path, known, flavor)
        if specialization is not None and not chosen.runtime_config:
            raise UsageError("`specialization` is for TensorRT-RTX", got=chosen.name, fix="leave it out")
        # The driver before any of NVIDIA's libraries: without one, the lean runtime crashes the process.
        gpus = find_gpus()
        index = 0 if device is None else device
        if not 0 <= index < len(gpus):
            raise DependencyError(f"there is no GPU {index}", got=f"{len(gpus)}, counted from 0")
        check_supported(path, chosen, gpus[index])
        if known is not None:
            check_gpu(path, known, gpus[index])
            check_host_code(path, known, allow_host_code)
        module: Any = chosen.load()
        if known is not None:
            check_version(path, known, chosen, str(module.__version__))
            if flavor is None and known.backend != chosen.name:
                _log.info("%s runs on %s: %s is not installed", path, chosen.name, known.backend)
        self.name = chosen.name
        self.version = str(module.__version__)
        self._device = Device(index)
        self._file = path
        self._cache: KernelCache | None = None
        self._runtime: Any = None
        self._graphs = GraphLimit(0 if chosen.runtime_config else graphs)
        with self._device.current():
            engine, log = self._deserialize(module, chosen, known, allow_host_code)
            loaded = describe_engine(module, engine, log)
            if chosen.runtime_config:
                how = choose_specialization(specialization, loaded.profiles)
                loaded = loaded.configured(self._runtime_config(loaded, how, bool(graphs)))
        self._engine: LoadedEngine | None = loaded
        self.inputs: tuple[TensorSpec, ...] = loaded.inputs
        self.outputs: tuple[TensorSpec, ...] = loaded.outputs
        self.metadata: Mapping[str, str] = {}

    def infer(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Runs the plan once.

        Args:
            feeds: One array for each input, of its dtype and shape: a numpy array, or an array on this GPU. The latter
                is anything with DLPack or `__cuda_array_interface__`; it is read in place, after the work that its
                library has queued, or, if its address is no multiple of 256, from a copy on the GPU. An array in
                page-locked memory of the host, numpy's or another library's, is copied from where it is.

        Returns:
            One numpy array for each output.

        Raises:
            ArtifactError: The library or the driver cannot run it.
            ClosedError: The backend is closed.
            InputError: An input is missing or unknown, or has the wrong dtype or a shape outside every profile.
        """

        def run(slot: Slot) -> dict[str, Array]:
            checked, profile = self._checked(slot, feeds)
            results = slot.infer(profile, checked)
            self._after_run(checked)
            return results

        return self._run(run, feeds)

    def infer_device(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Runs the plan once into arrays on the GPU; they are written when it returns.

        Args:
            feeds: As for `infer`.
            outputs: One array on this GPU for each output, of its dtype and of the shape that the inputs give.

        Raises:
            ArtifactError: The library or the driver cannot run it.
            ClosedError: The backend is closed.
            InputError: As for `infer`, or an output is missing, unknown or read-only, or has the wrong dtype or shape.
        """

        def run(slot: Slot) -> None:
            checked, profile = self._checked(slot, feeds)
            written = {name: self._viewed(slot, name, array) for name, array in outputs.items()}
            check_feeds(self.outputs, written, "output")
            targets = {}
            for name, array in written.items():
                if not isinstance(array, DeviceArray) or array.readonly:
                    kind = "a read-only array" if isinstance(array, DeviceArray) else "an array of the host"
                    raise InputError(
                        f"output {name} cannot be written to", got=kind, expected="a writable array on the GPU"
                    )
                targets[name] = array
            slot.infer_device(profile, checked, targets)
            self._after_run(checked)

        self._run(run, feeds)

    def close(self) -> None:
        """Waits for the calls that run now, and frees everything that the backend holds on the GPU and the host."""
        if self._engine is None:
            return
        with self._device.current(), ExitStack() as last_to_first:
            last_to_first.callback(self._unload)
            if self._cache is not None:
                last_to_first.callback(self._cache.save)
            self._slots.close()

    def _deserialize(
        self, module: Any, flavor: Flavor, sidecar: Sidecar | None, host_code: bool
    ) -> tuple[Any, LibraryLog]:
        log = library_log(module)
        self._runtime = module.Runtime(log.logger)
        self._runtime.engine_host_code_allowed = host_code
        engine = self._runtime.deserialize_cuda_engine(read_bytes(self._file))
        if engine is None:
            raise ArtifactError(
                f"{flavor.name} {self.version} cannot load {self._file}",
                got=log.take_errors(),
                fix=rebuild_command(self._file, sidecar) if sidecar else None,
            )
        return engine, log

    def _runtime_config(self, engine: LoadedEngine, specialization: Specialization, graphs: bool) -> Any:
        module, config = engine.module, engine.cuda_engine.create_runtime_config()
        strategies = module.DynamicShapesKernelSpecializationStrategy
        known = {"lazy": strategies.LAZY, "eager": strategies.EAGER, "none": strategies.NONE}
        config.dynamic_shapes_kernel_specialization_strategy = known[specialization]
        capturing = module.CudaGraphStrategy
        config.cuda_graph_strategy = capturing.WHOLE_GRAPH_CAPTURE if graphs else capturing.DISABLED
        cache = config.create_runtime_cache()
        self._cache = KernelCache(self._file, cache, engine.log)
        engine.require(config.set_runtime_cache(cache), "does not accept its own runtime cache")
        return config

    def _make_slot(self) -> Slot:
        return Slot(self._require_open(), self._device, self._graphs)

    def _require_open(self) -> LoadedEngine:
        engine = self._engine
        if engine is None:
            raise backend_closed()
        return engine

    def _unload(self) -> None:
        """Frees cache, engine and runtime, in this order: each belongs to the next."""
        self._cache = None
        self._engine = None
        self._runtime = None

    def _run(self, work: Callable[[Slot], R], feeds: Mapping[str, Any]) -> R:
        self._require_open()
        try:
            with self._device.current():
                return self._slots.use(work)
        except FcnDeployError:
            raise
        except Exception as error:  # of CUDA's own classes, whose package must not be imported to name them
            shapes = ", ".join(f"{name} {getattr(array, 'shape', 'without a shape')}" for name, array in feeds.items())
            raise ArtifactError(
                f"{self.name} cannot run {self._file} on {shapes}", got=str(error).strip().split("\n")[0]
            ) from error

    def _after_run(self, feeds: Mapping[str, Array | DeviceArray]) -> None:
        if self._cache is not None:
            self._cache.after_run(tuple((name, tuple(feeds[name].shape)) for name in sorted(feeds)))

    def _checked(self, slot: Slot, feeds: Mapping[str, Any]) -> tuple[dict[str, Array | DeviceArray], int]:
        """Returns the inputs as arrays that fit the plan, and the index of the profile to run them with."""
        viewed = {name: self._viewed(slot, name, array) for name, array in feeds.items()}
        check_feeds(self.inputs, viewed)
        shapes = {name: tuple(array.shape) for name, array in viewed.items()}
        return viewed, choose_profile(self._require_open().profiles, shapes)

    def _viewed(self, slot: Slot, name: str, array: Any) -> Array | DeviceArray:
        if isinstance(array, np.ndarray):
            return array
        if is_device_array(array):
            return slot.view(name, array)
        pinned = pinned_array(array)
        if pinned is not None:
            return pinned
        raise InputError(
            f"{name} is not an array",
            got=type(array).__name__,
            expected="a numpy array, or an array on the engine's GPU",
        )
