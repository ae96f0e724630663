"""Engines for TensorRT and TensorRT-RTX: plans, built from a typed graph as a strongly typed network.

One code path for every flavor; `runtime.tensorrt.flavor` lists how they differ. A strongly typed network has no builder
flags for precision: the graph alone decides it, in TensorRT 10.3 as in 11.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.engines.checks import check_tensorrt
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.engine import BuildRecord, Engine, make_engine
from fcn_deploy.engines.tensorrt.achieved import Inspection, find_achieved
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.layer_table import LayerTableLog
from fcn_deploy.engines.tensorrt.monitor import BuildPhases, make_monitor, run_interruptibly
from fcn_deploy.engines.tensorrt.profiles import FixedShape, ImageProfile, resolve_profiles
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import check_writable, exists, read_bytes, write_bytes
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.tensorrt.cuda import Device
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.log import LibraryLog, library_log

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel  # needs onnx, which a device that builds plans does not have

_log = logging.getLogger(__name__)

_SILENT = Silent()
_MIB = 1 << 20
_INPUT = "image"

Shape = tuple[int, int, int, int]
Shapes = tuple[Shape, Shape, Shape]


def build_tensorrt(
    flavor: Flavor,
    model: ExportedModel,
    config: BuildConfig,
    options: TensorRTConfig | None = None,
    ranges: Ranges | None = None,
    progress: Progress = _SILENT,
    log: Path | None = None,
    *,
    gpus: Callable[[], tuple[Gpu, ...]] = find_gpus,
) -> Engine:
    """Builds a plan.

    Args:
        flavor: The library that builds it.
        model: As `export` writes it, or prequantized.
        config: Precision, input and output.
        options: Profiles and what else only these builders take.
        ranges: What calibration saw: needed for INT8 of a model without Q/DQ; FP16 is audited by them.
        progress: Told of the profiles, of what stays in another precision, of how far the build is, of what the plan
            runs in and moves, and of what is not known about that.
        log: File for everything the library says.
        gpus: Returns the GPUs of this machine.

    Returns:
        The engine, with its layers and their precision: as the library's inspector says; without a driver as the
        builder's log does, and `unknown` if that log is not understood.

    Raises:
        DependencyError: The library is not installed, or this machine lacks the GPU that it needs.
        InputError: The library refuses the graph or cannot build it, the ranges belong to another model, or a file
            cannot be read or written.
        KeyboardInterrupt: Ctrl-C; the build is stopped.
        PrecisionError: A layer does not run in the precision asked for it.
        UsageError: This flavor cannot do what is asked for, the model does not take the shapes of a profile, INT8
            without ranges, or what else `typed_graph` refuses.
    """
    # Imported here: it needs onnx, which a device that builds plans from typed graphs does not have.
    from fcn_deploy.engines.tensorrt.typed_graph import typed_graph

    options = options or TensorRTConfig()
    architectures = check_tensorrt(flavor, config, options, gpus)
    flavor.load()
    graph = typed_graph(model, config, ranges, options.base, flavor=flavor)
    for note in graph.notes:
        progress.stage(note)
    data, record = build_plan(
        flavor,
        graph.data,
        graph.precision,
        config.io,
        options,
        architectures=architectures,
        min_size=model.spec.min_size,
        progress=progress,
        log=log,
        gpus=gpus,
        on_device=nullcontext if options.device is None else Device(options.device).current,
    )
    return make_engine(data, model, ranges, config.io, record)


def build_plan(
    flavor: Flavor,
    graph: bytes,
    precision: Precision,
    io: Io,
    options: TensorRTConfig,
    *,
    architectures: Sequence[str],
    min_size: tuple[int, int] = (1, 1),
    progress: Progress = _SILENT,
    log: Path | None = None,
    gpus: Callable[[], tuple[Gpu, ...]] = find_gpus,
    on_device: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[bytes, BuildRecord]:
    """Builds the plan of a typed graph, with the library alone: neither torch nor onnx is needed.

    Args:
        flavor: The library that builds it.
        graph: Content of the ONNX file of the typed graph.
        precision: What the graph asks for.
        io: Its input and output.
        options: Profiles and what else only these builders take; its `base` is in the graph already.
        architectures: What `check_tensorrt` returned for these options.
        min_size: The smallest height and width that the net takes.
        progress: As for `build_tensorrt`.
        log: Likewise.
        gpus: Likewise.
        on_device: Makes the GPU that is built for the current one of the calling thread, until its context ends.

    Returns:
        The plan, and what the builder says about it.

    Raises:
        DependencyError: The library is not installed.
        InputError: The library refuses the graph or cannot build it, or a file cannot be read or written.
        KeyboardInterrupt: Ctrl-C; the build is stopped.
        PrecisionError: A layer does not run in the precision asked for it.
        UsageError: The graph does not take the shapes of a profile.
    """
    module = flavor.load()
    asked = replace(precision, tf32=True) if options.tf32 else precision
    table = LayerTableLog()
    with library_log(module).recording(log, table.hear) as said, on_device():
        builder = _Builder(module, said, on_device)
        network = builder.parse(graph)
        profiles = resolve_profiles(options.profiles, _fixed_shape(network, io), min_size)
        which = "" if options.profiles else ", the default; see `min_shape`, `opt_shape` and `max_shape`"
        for profile in profiles:
            progress.stage(f"profile: {profile}{which}")
        with progress.advancing(f"building {precision.requested} with {flavor.name} {module.__version__}") as show:
            shapes = [_tensor_shapes(profile, io) for profile in profiles]
            data = builder.build(network, options, shapes, show)
        inspection = Inspection(
            flavor, module, said, data, host_code=options.version_compatible, gpus=gpus, table=table.text
        )
        achieved = find_achieved(inspection, asked, progress)
    record = BuildRecord(
        backend=flavor.name,
        library=str(module.__version__),
        precision=achieved.precision,
        target=_target(architectures, options),
        profiles=tuple(profile.to_json() for profile in profiles),
        plan=achieved.plan,
    )
    return data, record


def _target(architectures: Sequence[str], options: TensorRTConfig) -> dict[str, Any]:
    target: dict[str, Any] = {"cpu": "generic", "gpu": list(architectures)}
    if options.version_compatible:
        target["version_compatible"] = True
    if options.hardware_compatibility:
        target["hardware_compatible"] = True
    return target


def _fixed_shape(network: Any, io: Io) -> FixedShape:
    """[batch, height, width] of the images that a network takes; None for a size that may be any."""
    sizes = [None if size < 0 else size for size in network.get_input(0).shape]
    batch, height, width = (sizes[axis] for axis in ((0, 1, 2) if io == "image" else (0, 2, 3)))
    return batch, height, width


def _tensor_shapes(profile: ImageProfile, io: Io) -> Shapes:
    return _tensor_shape(profile.min, io), _tensor_shape(profile.opt, io), _tensor_shape(profile.max, io)


def _tensor_shape(shape: ImageShape, io: Io) -> Shape:
    if io == "image":
        return shape.batch, shape.height, shape.width, 3
    return shape.batch, 3, shape.height, shape.width


class _Builder:
    """One library's builder, from a graph to a plan; a refusal becomes an error that says why."""

    def __init__(
        self, module: ModuleType, said: LibraryLog, on_device: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._module = module
        self._on_device = on_device
        self._name = f"{module.__name__} {module.__version__}"
        self._said = said
        self._builder: Any = module.Builder(said.logger)  # Any: the libraries bring no type hints

    def parse(self, data: bytes) -> Any:
        """Reads a graph into a strongly typed network.

        Raises:
            InputError: The library refuses nodes; the message names each of them.
        """
        # Version 11 has no other networks and ignores the flag; earlier versions need it.
        strongly_typed = 1 << int(self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self._builder.create_network(strongly_typed)
        parser: Any = self._module.OnnxParser(network, self._said.logger)
        if not parser.parse(data):
            errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
            raise InputError(
                f"{self._name} does not take the graph",
                got="; ".join(errors) or self._said.take_errors(),
                fix="remove the operators it refuses from the net, or build for onnxruntime",
            )
        return network

    def build(
        self,
        network: Any,
        options: TensorRTConfig,
        profiles: Sequence[Shapes],
        show: Callable[[float], None],
    ) -> bytes:
        """Builds the plan of a network.

        Raises:
            InputError: The library cannot; the message says what it logged.
            KeyboardInterrupt: Ctrl-C.
        """
        phases = BuildPhases(show)
        config = self._configure(options)
        for shapes in profiles:
            profile = self._builder.create_optimization_profile()
            profile.set_shape(_INPUT, *shapes)
            if config.add_optimization_profile(profile) < 0:
                raise self._failure()
        monitor = make_monitor(self._module, phases)  # a variable: the config alone does not keep it alive
        config.progress_monitor = monitor

        def work() -> Any:
            with self._on_device():  # which GPU is the current one is known by thread, and this is another thread
                return self._builder.build_serialized_network(network, config)

        plan = run_interruptibly(work, phases.stop)
        if plan is None:
            raise self._failure()
        for error in self._said.errors():
            _log.warning("%s built the plan, but reported an error: %s", self._name, error)
        if options.timing_cache is not None:
            write_bytes(Path(options.timing_cache), bytes(config.get_timing_cache().serialize()))
        return bytes(plan)

    def _configure(self, options: TensorRTConfig) -> Any:
        module, config = self._module, self._builder.create_builder_config()
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # log and inspector then tell of each layer
        config.clear_flag(module.BuilderFlag.TF32)  # on by default, and 13 bits short of FP32
        if options.tf32:
            config.set_flag(module.BuilderFlag.TF32)
        if options.workspace is not None:
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace * _MIB)
        if options.builder_optimization_level is not None:
            config.builder_optimization_level = options.builder_optimization_level
        if options.hardware_compatibility:
            config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
        if options.version_compatible:
            config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
        if options.timing_cache is not None:
            self._read_timing_cache(config, Path(options.timing_cache))
        if options.compute_capabilities:
            self._set_compute_capabilities(config, options.compute_capabilities)
        return config

    def _read_timing_cache(self, config: Any, path: Path) -> None:
        check_writable(path)
        cache = config.create_timing_cache(read_bytes(path) if exists(path) else b"")
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            raise InputError(
                f"the timing cache {path} was not written for this GPU and library",
                got=self._said.take_errors(),
                fix="remove it, or name another",
            )

    def _set_compute_capabilities(self, config: Any, capabilities: Sequence[str]) -> None:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            architecture = getattr(self._module.ComputeCapability, "SM" + capability.replace(".", ""), None)
            if architecture is None:  # the earliest versions do not know the newest GPUs
                raise UsageError(
                    f"{self._name} does not build for such GPUs",
                    got=f"compute capability {capability}",
                    fix="install a newer version, or leave it out",
                )
            if not config.set_compute_capability(architecture, index):
                raise self._failure()

    def _failure(self) -> InputError:
        return InputError(
            f"{self._name} cannot build the engine",
            got=self._said.take_errors(),
            fix="name a file with `log`, which keeps all that the library says",
        )


def _describe(error: Any) -> str:
    """One of the parser's errors, as one line."""
    node = f"{error.node_operator()} {error.node_name()}".strip()
    what = f"{error.code().name}, {' '.join(error.desc().split())}"
    return f"{node}: {what}" if node else what
