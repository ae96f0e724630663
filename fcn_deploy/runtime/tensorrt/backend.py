"""Plans of TensorRT and TensorRT-RTX as a Backend, run by these two or by TensorRT-lean: one code path."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import Sidecar, load_sidecar, sidecar_path
from fcn_deploy.errors import ArtifactError, ClosedError, DependencyError, FcnDeployError, InputError, UsageError
from fcn_deploy.files import read_bytes
from fcn_deploy.runtime.backend import Array, check_feeds
from fcn_deploy.runtime.tensorrt.compatibility import (
    check_gpu,
    check_host_code,
    check_version,
    choose_flavor,
    rebuild_command,
)
from fcn_deploy.runtime.tensorrt.cuda import Device, DeviceArray, is_device_array
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.engine import Plan, describe
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.kernel_cache import KernelCache
from fcn_deploy.runtime.tensorrt.log import LibraryLog, library_log
from fcn_deploy.runtime.tensorrt.pool import Pool
from fcn_deploy.runtime.tensorrt.profiles import choose_profile
from fcn_deploy.runtime.tensorrt.slot import Lane

_log = logging.getLogger(__name__)


class TensorRTBackend:
    """A plan on a GPU.

    Calls from several threads run at the same time, each on a stream and in an execution context of its own; these are
    made when they are first needed. Device and pinned host memory grows with the largest shape and is then used again.
    CUDA graphs: the library's own where it has them, else work that comes a second time is captured.

    Args:
        engine: An `.engine` or `.plan` file.
        device: Index of the GPU; 0 where None.
        flavor: The library that runs it, such as `tensorrt-rtx`; where None the one that the sidecar says built it, or,
            if that is not installed, another that runs its plans. Needed where there is no sidecar.
        allow_host_code: Lets the plan run code on the host, which plans built with `--version-compatible` bring.
        contexts: How many calls run at the same time, at least 1; others wait.
        graphs: How many CUDA graphs each of them keeps; 0 for none, also of the library's own.

    Raises:
        ArtifactError: Plan, sidecar, library and GPU do not fit together, or the plan is corrupt.
        DependencyError: There is no driver, no such GPU, or the library is not installed.
        InputError: The file does not exist.
        UsageError: There is no such flavor, or `contexts` or `graphs` does not fit.
    """

    def __init__(
        self,
        engine: Path,
        *,
        device: int | None = None,
        flavor: str | None = None,
        allow_host_code: bool = False,
        contexts: int = 8,
        graphs: int = 4,
    ) -> None:
        if not engine.is_file():
            raise InputError(f"cannot open {engine}", got="no such file")
        if graphs < 0:
            raise UsageError("bad number of CUDA graphs", got=graphs, expected="0 or more")
        self._lanes: Pool[Lane] = Pool(self._make_lane, Lane.close, contexts)
        # With a flavor named, a plan from elsewhere runs without a sidecar; a sidecar that is there always counts.
        known = load_sidecar(engine) if sidecar_path(engine).is_file() else None
        chosen = choose_flavor(engine, known, flavor)
        # The driver before any of NVIDIA's libraries: without one, the lean runtime brings down the process.
        gpus = find_gpus()
        index = 0 if device is None else device
        if not 0 <= index < len(gpus):
            raise DependencyError(f"there is no GPU {index}", got=f"{len(gpus)}, counted from 0")
        if known is not None:
            check_gpu(engine, known, gpus[index])
            check_host_code(engine, known, allow_host_code)
        module: Any = chosen.load()
        if known is not None:
            check_version(engine, known, chosen, str(module.__version__))
            if flavor is None and known.backend != chosen.name:
                _log.info("%s runs on %s: %s is not installed", engine, chosen.name, known.backend)
        self.name = chosen.name
        self.version = str(module.__version__)
        self._device = Device(index)
        self._file = engine
        self._cache: KernelCache | None = None
        self._runtime: Any = None
        with self._device.current():
            self._plan: Plan | None = self._load(module, chosen, known, allow_host_code, bool(graphs))
        self._graphs = graphs
        self._inputs, self._outputs = self._plan.inputs, self._plan.outputs

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The plan's inputs."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The plan's outputs."""
        return self._outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        """Nothing: a plan carries no metadata, what it is stands in its sidecar."""
        return {}

    def infer(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Runs the plan once.

        Args:
            feeds: One array for each input, of its dtype and shape: of numpy, or on this GPU. The latter is anything
                with DLPack or `__cuda_array_interface__`; it is read where it is, after what its library has queued.

        Returns:
            One numpy array for each output.

        Raises:
            ArtifactError: The library or the driver refuses.
            ClosedError: The backend has been closed.
            InputError: An input is missing, unknown, of another dtype, or of a shape no profile holds.
        """
        with self._lane(feeds) as lane:
            checked, profile = self._checked(lane, feeds)
            return lane.infer(profile, checked)

    def infer_device(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Runs the plan once, into arrays on the GPU; they are written when it returns.

        Args:
            feeds: As for `infer`.
            outputs: One array on this GPU for each output, of its dtype and of the shape that the inputs give.

        Raises:
            ArtifactError: The library or the driver refuses.
            ClosedError: The backend has been closed.
            InputError: As for `infer`, or an output is missing, unknown, read-only, of another dtype or shape.
        """
        with self._lane(feeds) as lane:
            checked, profile = self._checked(lane, feeds)
            written = {name: self._viewed(lane, name, array) for name, array in outputs.items()}
            check_feeds(self._outputs, written, "output")  # type: ignore[arg-type]
            targets = {}
            for name, array in written.items():
                if not isinstance(array, DeviceArray) or array.readonly:
                    kind = "an array that is read-only" if isinstance(array, DeviceArray) else "an array of numpy"
                    raise InputError(f"output {name} cannot be written to", got=kind, expected="an array on the GPU")
                targets[name] = array
            lane.infer_device(profile, checked, targets)

    def close(self) -> None:
        """Waits for the calls under way and frees everything the backend holds on the GPU and for it."""
        if self._plan is None:
            return
        with self._device.current(), ExitStack() as last_to_first:
            last_to_first.callback(self._unload)
            if self._cache is not None:
                last_to_first.callback(self._cache.save)
            self._lanes.close()

    def _load(self, module: Any, flavor: Flavor, sidecar: Sidecar | None, host_code: bool, graphs: bool) -> Plan:
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
        config = self._runtime_config(module, engine, log, graphs) if flavor.runtime_config else None
        return describe(module, engine, log, config)

    def _runtime_config(self, module: Any, engine: Any, log: LibraryLog, graphs: bool) -> Any:
        config = engine.create_runtime_config()
        # What it would else compile in the background while the first calls run something slower.
        config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
        strategies = module.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if graphs else strategies.DISABLED
        cache = config.create_runtime_cache()
        self._cache = KernelCache(self._file, cache, log)
        if not config.set_runtime_cache(cache):
            raise ArtifactError(f"{module.__name__} does not take its own runtime cache", got=log.take_errors())
        return config

    def _make_lane(self) -> Lane:
        return Lane(self._open_plan(), self._device, self._graphs)

    def _open_plan(self) -> Plan:
        plan = self._plan
        if plan is None:
            raise ClosedError("this backend is closed", fix="open the engine again")
        return plan

    def _unload(self) -> None:
        """Frees cache, engine and runtime, in this order: each belongs to the next."""
        self._cache = None
        self._plan = None
        self._runtime = None

    @contextmanager
    def _lane(self, feeds: Mapping[str, Any]) -> Iterator[Lane]:
        self._open_plan()
        try:
            with self._device.current(), self._lanes.lend() as lane:
                yield lane
        except FcnDeployError:
            raise
        except Exception as error:  # of CUDA's own classes, which one needs its package to name
            shapes = ", ".join(f"{name} {getattr(array, 'shape', 'of no shape')}" for name, array in feeds.items())
            raise ArtifactError(
                f"{self.name} cannot run {self._file} on {shapes}", got=str(error).strip().split("\n")[0]
            ) from error

    def _checked(self, lane: Lane, feeds: Mapping[str, Any]) -> tuple[dict[str, Array | DeviceArray], int]:
        viewed = {name: self._viewed(lane, name, array) for name, array in feeds.items()}
        check_feeds(self._inputs, viewed)  # type: ignore[arg-type]
        return viewed, choose_profile(
            self._open_plan().profiles, {name: tuple(each.shape) for name, each in viewed.items()}
        )

    def _viewed(self, lane: Lane, name: str, array: Any) -> Array | DeviceArray:
        if isinstance(array, np.ndarray):
            return array
        if is_device_array(array):
            return lane.view(name, array)
        raise InputError(
            f"{name} is no array", got=type(array).__name__, expected="an array of numpy, or one on the engine's GPU"
        )
