"""Engines for TensorRT and TensorRT-RTX: plans, built from a typed graph into a strongly typed network.

One code path for every flavor; what they differ in is said by `runtime.flavor`. A strongly typed network has no builder
flags of precision: what runs in what is the graph's to say, in TensorRT 10.3 as in 11.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import EngineFile, Io, Sidecar, Source
from fcn_deploy.engines.engine import BuildConfig, Engine
from fcn_deploy.engines.tensorrt.achieved import achieved_precision
from fcn_deploy.engines.tensorrt.monitor import BuildPhases, make_monitor, run_interruptibly
from fcn_deploy.engines.tensorrt.profiles import FixedShape, ImageProfile, resolve_profiles
from fcn_deploy.engines.tensorrt.typed_graph import Base, typed_graph
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import check_writable, read_bytes, sha256_bytes, write_bytes
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor
from fcn_deploy.runtime.tensorrt.log import LibraryLog, library_log

_log = logging.getLogger(__name__)

_SILENT = Silent()
_MIB = 1 << 20
_INPUT = "image"

Shape = tuple[int, int, int, int]
Shapes = tuple[Shape, Shape, Shape]


@dataclass(frozen=True)
class TensorRTConfig:
    """What only the builders of TensorRT are asked for.

    Attributes:
        profiles: Shapes of images the engine takes; where empty `profiles.DEFAULT`, or the shape the model fixes.
        base: What an INT8 engine runs in where it is not quantised: `fp16` or `fp32`.
        workspace: MiB of GPU memory a layer may use for itself; the library's default where None.
        builder_optimization_level: 0 builds fastest, 5 searches longest; the library's default, 3, where None.
        timing_cache: File of kernel timings, read where it is there and written after the build.
        hardware_compatibility: Whether the engine is to run on GPUs of compute capability 8.0 and every newer one, not
            only on that of the one at hand.
        version_compatible: Whether later versions of the library, and its lean runtime, are to load the engine; it
            then holds code that runs on the host, which a runtime does only on the user's word.
        compute_capabilities: GPU architectures to build for, such as `8.6`; the library's default where empty,
            which for TensorRT-RTX is 8.0 and newer.
    """

    profiles: tuple[ImageProfile, ...] = ()
    base: Base = "fp16"
    workspace: int | None = None
    builder_optimization_level: int | None = None
    timing_cache: Path | None = None
    hardware_compatibility: bool = False
    version_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.base not in ("fp16", "fp32"):
            raise UsageError("unknown base", got=repr(self.base), expected="fp16 or fp32")
        if self.workspace is not None and self.workspace < 1:
            raise UsageError("bad workspace", got=self.workspace, expected="1 MiB or more")
        level = self.builder_optimization_level
        if level is not None and not 0 <= level <= 5:
            raise UsageError("bad builder optimization level", got=level, expected="0 to 5")
        if len(set(self.compute_capabilities)) != len(self.compute_capabilities):
            raise UsageError("a compute capability twice", got=", ".join(self.compute_capabilities))


def check_tensorrt(flavor: Flavor, config: BuildConfig, options: TensorRTConfig) -> tuple[str, ...]:
    """Checks what can be checked before work starts: the options, the library, and the GPU where it needs one.

    Returns:
        The GPU architectures the engine will be for, as sidecars have them: none where the library decides at load.

    Raises:
        DependencyError: The library is not installed, or needs a GPU and there is none.
        UsageError: This flavor cannot do what is asked for.
    """
    _check_options(flavor, config, options)
    flavor.check_installed()
    if flavor.builds_without_gpu:
        return options.compute_capabilities
    gpus = find_gpus()  # before the library is touched: without a driver these do not always fail cleanly
    return ("8.0",) if options.hardware_compatibility else (gpus[0].compute_capability,)


def _check_options(flavor: Flavor, config: BuildConfig, options: TensorRTConfig) -> None:
    if not flavor.builds:
        raise UsageError(f"{flavor.name} only runs engines", expected="a backend that builds them")
    asked_and_can = {
        "--timing-cache": (options.timing_cache, flavor.timing_cache),
        "--hardware-compatibility": (options.hardware_compatibility, flavor.hardware_compatible),
        "--version-compatible": (options.version_compatible, flavor.version_compatible),
        "--compute-capability": (options.compute_capabilities, flavor.compute_capabilities),
    }
    refused = [option for option, (asked, can) in asked_and_can.items() if asked and not can]
    if refused:
        raise UsageError(f"{flavor.name} cannot do what is asked for", got=", ".join(refused), fix="leave it out")
    unknown = [each for each in options.compute_capabilities if each not in flavor.compute_capabilities]
    if unknown:
        raise UsageError(
            f"{flavor.name} does not build for such GPUs",
            got=f"compute capability {', '.join(unknown)}",
            expected=", ".join(flavor.compute_capabilities),
        )
    if config.target_cpu != "generic":
        raise UsageError("a target CPU for a GPU's engine", got=f"--target-cpu {config.target_cpu}", fix="leave it out")
    if options.base != "fp16" and config.precision != "int8":
        raise UsageError(
            "only INT8 has another precision as its base", got=f"--base {options.base} with --{config.precision}"
        )


def build_tensorrt(
    flavor: Flavor,
    model: bytes,
    config: BuildConfig,
    options: TensorRTConfig | None = None,
    ranges: Ranges | None = None,
    progress: Progress = _SILENT,
    log: Path | None = None,
) -> Engine:
    """Builds a plan.

    Args:
        flavor: Which library builds it.
        model: Content of an ONNX file as `export` writes it, or with Q/DQ of its own.
        config: Precision, input and output.
        options: Profiles and what else is particular to these builders.
        ranges: What calibration saw: needed for INT8 of a model without Q/DQ; for FP16 they tell which tensors it could
            not hold.
        progress: Told of the profiles, of what stays in another precision, of how far the build is, and where it is not
            known what precision was achieved.
        log: Where to write everything the library says.

    Returns:
        The engine, with the precision that the library's inspector finds in it; without a driver that is `unknown`.

    Raises:
        DependencyError: The library is not installed, or needs a GPU and there is none.
        InputError: The model is not an exported net, the library refuses its graph or cannot build it, the ranges are
            not the model's, or a file cannot be read or written.
        KeyboardInterrupt: Ctrl-C; the build is given up.
        PrecisionError: A layer does not run in the precision asked for it.
        UsageError: This flavor cannot do what is asked for, the model does not take the shapes of a profile, INT8
            without ranges, or what else `build.typed.typed_graph` refuses.
    """
    options = options or TensorRTConfig()
    architectures = check_tensorrt(flavor, config, options)
    spec = exported_spec(parse(model), stated=config.spec)
    module = flavor.load()
    typed = typed_graph(model, config, ranges, options.base)
    for note in typed.notes:
        progress.stage(note)
    with library_log(module).recording(log) as said:
        builder = _Builder(module, said)
        network = builder.parse(typed.data)
        profiles = resolve_profiles(options.profiles, _fixed_shape(network, config.io))
        which = "" if options.profiles else ", the default; see --min-shape, --opt-shape and --max-shape"
        for profile in profiles:
            progress.stage(f"profile: {profile}{which}")
        with progress.advancing(f"building {config.precision} with {flavor.name} {module.__version__}") as show:
            shapes = [_tensor_shapes(profile, config.io) for profile in profiles]
            data = builder.build(network, options, shapes, show)
        precision = achieved_precision(
            *(flavor, module, said, data, typed.precision, progress), host_code=options.version_compatible
        )
    target: dict[str, Any] = {"cpu": "generic", "gpu": list(architectures)}
    if options.version_compatible:
        target["version_compatible"] = True
    if options.hardware_compatibility:
        target["hardware_compatible"] = True
    sidecar = Sidecar(
        engine=EngineFile("", sha256_bytes(data), len(data)),
        backend=flavor.name,
        library=str(module.__version__),
        io=config.io,
        precision=precision,
        spec=spec,
        source=_source(model, ranges),
        target=target,
        profiles=tuple(profile.to_json() for profile in profiles),
    )
    return Engine(data, sidecar)


def _source(model: bytes, ranges: Ranges | None) -> Source:
    digest = sha256_bytes(model)
    if ranges is None:
        return Source(digest)
    return Source(digest, sha256_bytes(ranges.dumps()), asdict(ranges.data))


def _fixed_shape(network: Any, io: Io) -> FixedShape:
    """[batch, height, width] of the images a network takes, None where it takes any."""
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
    """One library's builder, from a graph to a plan; what it refuses becomes an error that says why."""

    def __init__(self, module: ModuleType, said: LibraryLog) -> None:
        self._module = module
        self._name = f"{module.__name__} {module.__version__}"
        self._said = said
        self._builder: Any = module.Builder(said.logger)  # Any, for the libraries bring no type hints

    def parse(self, data: bytes) -> Any:
        """Reads a graph into a strongly typed network.

        Raises:
            InputError: The library refuses nodes; the message names each of them.
        """
        # Version 11 knows no other networks and ignores the flag; before it the flag is what makes them so.
        strongly_typed = 1 << int(self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self._builder.create_network(strongly_typed)
        parser: Any = self._module.OnnxParser(network, self._said.logger)
        if not parser.parse(data):
            errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
            raise InputError(
                f"{self._name} does not take the graph",
                got="; ".join(errors) or self._said.take_errors(),
                fix="leave the operators it refuses out of the net, or build for onnxruntime",
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
        monitor = make_monitor(self._module, phases)  # held until the build has ended: the config alone does not
        config.progress_monitor = monitor
        plan = run_interruptibly(lambda: self._builder.build_serialized_network(network, config), phases.stop)
        if plan is None:
            raise self._failure()
        for error in self._said.errors():
            _log.warning("%s made a plan, but said: %s", self._name, error)
        if options.timing_cache is not None:
            write_bytes(options.timing_cache, bytes(config.get_timing_cache().serialize()))
        return bytes(plan)

    def _configure(self, options: TensorRTConfig) -> Any:
        module, config = self._module, self._builder.create_builder_config()
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # or nobody can tell what became of a layer
        config.clear_flag(module.BuilderFlag.TF32)  # on by default, and 13 bits short of the FP32 that was asked for
        if options.workspace is not None:
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace * _MIB)
        if options.builder_optimization_level is not None:
            config.builder_optimization_level = options.builder_optimization_level
        if options.hardware_compatibility:
            config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
        if options.version_compatible:
            config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
        if options.timing_cache is not None:
            self._read_timing_cache(config, options.timing_cache)
        if options.compute_capabilities:
            self._set_compute_capabilities(config, options.compute_capabilities)
        return config

    def _read_timing_cache(self, config: Any, path: Path) -> None:
        check_writable(path)
        cache = config.create_timing_cache(read_bytes(path) if path.exists() else b"")
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            raise InputError(
                f"the timing cache {path} is not of this GPU and library",
                got=self._said.take_errors(),
                fix="remove it, or name another",
            )

    def _set_compute_capabilities(self, config: Any, capabilities: Sequence[str]) -> None:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            architecture = getattr(self._module.ComputeCapability, "SM" + capability.replace(".", ""))
            if not config.set_compute_capability(architecture, index):
                raise self._failure()

    def _failure(self) -> InputError:
        return InputError(
            f"{self._name} cannot build the engine",
            got=self._said.take_errors(),
            fix="--log FILE keeps all that the library says",
        )


def _describe(error: Any) -> str:
    """What the parser has against a node, as one line."""
    node = f"{error.node_operator()} {error.node_name()}".strip()
    what = f"{error.code().name}, {' '.join(error.desc().split())}"
    return f"{node}: {what}" if node else what
