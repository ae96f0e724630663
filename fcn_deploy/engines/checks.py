"""What each builder refuses, before work starts: no library that builds or runs engines is imported for it."""

from __future__ import annotations

from collections.abc import Callable

from fcn_deploy.engines.config import Base, BuildConfig, refused_winograd
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.openvino import library as openvino
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import LEAST_GPU, Flavor

# The backends that are no flavor of TensorRT, by the names that users give them.
ONNXRUNTIME = "onnxruntime"
OPENVINO = openvino.NAME
SIMULATION = "simulation"

# The oldest GPU that libraries build for by themselves.
_AMPERE = "8.0"


def check_onnxruntime(config: BuildConfig, options: TensorRTConfig | None = None) -> None:
    """Checks what can be checked before work starts.

    Args:
        config: What is to be built.
        options: What was asked of TensorRT's builders; all of it has to be the default.

    Raises:
        UsageError: FP16, BF16 or FP8, which ONNX Runtime's CPU has no kernels for, or an option for TensorRT.
    """
    if config.precision == "fp16":
        raise UsageError(
            "ONNX Runtime's CPU kernels do not compute in FP16",
            got='`precision="fp16"` for onnxruntime',
            expected='`precision="fp32"` or `precision="int8"`',
        )
    if config.precision == "bf16":
        got = f'`precision="bf16"` for {ONNXRUNTIME}'
        expected = '`backend="openvino"` for BF16'
        raise UsageError(f"{ONNXRUNTIME} builds no engines in BF16", got=got, expected=expected)
    _refuse_fp8(config, ONNXRUNTIME)
    if options is not None:
        options.require_defaults(ONNXRUNTIME)


def check_openvino(config: BuildConfig, base: Base | None, options: TensorRTConfig | None = None) -> None:
    """Checks what can be checked before work starts: the options, the library, and whether the CPU has BF16.

    Args:
        config: What is to be built.
        base: What an INT8 engine computes in where it is not quantised, `fp32` or `bf16`; `fp32` if None.
        options: What was asked of TensorRT's builders; all of it has to be the default.

    Raises:
        DependencyError: OpenVINO is not installed; or BF16 is asked for, and this CPU does not have it, so that nothing
            can be measured of the engine.
        UsageError: FP16 or FP8, which OpenVINO does not compute in on x86 CPUs, or an option that it has no use for.
    """
    _refuse_fp8(config, OPENVINO)
    asked = f'`precision="{config.precision}"`'
    if config.precision == "fp16" or base == "fp16":
        got = asked if config.precision == "fp16" else '`base="fp16"`'
        expected = "fp32, bf16 or int8, with a base of fp32 or bf16"
        raise UsageError("OpenVINO's CPU kernels do not compute in FP16", got=f"{got} for openvino", expected=expected)
    if base is not None and config.precision != "int8":
        got = f'`base="{base}"` with {asked}'
        raise UsageError("only INT8 has another precision as its base", got=got, fix="leave it out")
    if config.winograd is not None:
        raise refused_winograd(config.winograd, OPENVINO)
    if options is not None:
        options.require_defaults(OPENVINO)
    openvino.check_installed()
    if "bf16" in (config.precision, base) and cpu.has_bf16() is False:
        raise DependencyError(
            "what an engine runs in is measured when it is built, and this CPU has no BF16",
            got=asked if config.precision == "bf16" else '`base="bf16"`',
            expected="a CPU with AVX-512 BF16 or AMX, or an Arm CPU with BF16",
            fix='build it on such a CPU, or with `precision="fp32"` or `base="fp32"`',
        )


def _refuse_fp8(config: BuildConfig, backend: str) -> None:
    if config.precision == "fp8":
        expected = "`backend` tensorrt, tensorrt-rtx or simulation for FP8"
        raise UsageError(
            f"{backend} builds no engines in FP8", got=f'`precision="fp8"` for {backend}', expected=expected
        )


def check_simulation(config: BuildConfig, options: TensorRTConfig | None = None) -> None:
    """Checks what can be checked before work starts.

    Args:
        config: What is to be built.
        options: What was asked of TensorRT's builders; all of it has to be the default, but for the base of INT8 and
            FP8.

    Raises:
        UsageError: An option that a simulation has no use for.
    """
    if config.target_cpu != "generic":
        got = f'`target_cpu="{config.target_cpu}"`'
        raise UsageError("a target CPU for a simulation", got=got, fix="leave it out")
    if config.winograd is not None:
        raise refused_winograd(config.winograd, SIMULATION)
    if options is not None:
        options.require_defaults(SIMULATION, ("base",) if config.quantized else ())


def check_tensorrt(
    flavor: Flavor,
    config: BuildConfig,
    options: TensorRTConfig,
    gpus: Callable[[], tuple[Gpu, ...]] = find_gpus,
) -> tuple[str, ...]:
    """Checks what can be checked before work starts: the options, the library, and the GPU if it needs one.

    Args:
        flavor: The library that is to build.
        config: What is to be built.
        options: What is asked of TensorRT's builders.
        gpus: Returns the GPUs of this machine.

    Returns:
        The GPU architectures that the engine will be for, as sidecars have them; empty if the library decides that when
        it loads the engine.

    Raises:
        DependencyError: The library is not installed, or this machine lacks the GPU that it needs, or that BF16, FP8 or
            TF32 needs.
        UsageError: This flavor cannot do what is asked for, or GPUs that the engine is for cannot.
    """
    _check_options(flavor, config, options)
    flavor.check_installed()
    if flavor.builds_without_gpu:
        return options.compute_capabilities
    gpu = chosen_gpu(options, gpus)  # before the library is touched: without a driver it does not always fail cleanly
    if options.hardware_compatibility:
        return (_AMPERE,)
    for asked, least in _needs(config, options):
        if _numbers(gpu.compute_capability) < _numbers(least):
            raise DependencyError(
                f"the GPU of this machine does not have what {asked} needs",
                got=f"{gpu.name}, compute capability {gpu.compute_capability}",
                expected=f"compute capability {least} or newer",
                fix="build it on the GPU that it is for, or in another precision",
            )
    return (gpu.compute_capability,)


def chosen_gpu(options: TensorRTConfig, gpus: Callable[[], tuple[Gpu, ...]]) -> Gpu:
    """Returns the GPU that an engine is built on, for a library that needs one.

    Raises:
        DependencyError: There is no driver, or no GPU of that index.
    """
    found, index = gpus(), options.device or 0
    if index >= len(found):
        raise DependencyError(f"there is no GPU {index}", got=f"{len(found)}, counted from 0")
    return found[index]


def _check_options(flavor: Flavor, config: BuildConfig, options: TensorRTConfig) -> None:
    if not flavor.builds:
        raise UsageError(f"{flavor.name} only runs engines", expected="a backend that builds them")
    asked_and_can = {
        "timing_cache": (options.timing_cache, flavor.timing_cache),
        "hardware_compatibility": (options.hardware_compatibility, flavor.hardware_compatible),
        "version_compatible": (options.version_compatible, flavor.version_compatible),
        "compute_capability": (options.compute_capabilities, flavor.compute_capabilities),
        "device": (options.device is not None, not flavor.builds_without_gpu),
    }
    refused = [f"`{option}`" for option, (asked, can) in asked_and_can.items() if asked and not can]
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
        got = f'`target_cpu="{config.target_cpu}"`'
        raise UsageError("a target CPU for a GPU's engine", got=got, fix="leave it out")
    if config.winograd is not None:
        raise refused_winograd(config.winograd, flavor.name)
    asked = f'`precision="{config.precision}"`'
    if options.base != "fp16" and not config.quantized:
        got = f'`base="{options.base}"` with {asked}'
        raise UsageError("only INT8 and FP8 have another precision as their base", got=got, fix="leave it out")
    if options.tf32 and (options.base if config.quantized else config.precision) != "fp32":
        base = f' and `base="{options.base}"`' if config.quantized else ""
        expected = '`precision="fp32"`, or `base="fp32"` of INT8 and FP8'
        raise UsageError("TF32 is for what runs in FP32", got=f"`tf32` with {asked}{base}", expected=expected)
    _check_targets(flavor, config, options)


def _check_targets(flavor: Flavor, config: BuildConfig, options: TensorRTConfig) -> None:
    """Checks that all GPUs that the user names, or that the library builds for by itself, have the precision."""
    if not flavor.builds_without_gpu and not options.hardware_compatibility:
        return  # it is built for the GPU of this machine, which is not known yet
    targets = options.compute_capabilities or (_AMPERE,)
    for asked, least in _needs(config, options):
        lacking = [target for target in targets if _numbers(target) < _numbers(least)]
        if lacking:
            named = [each for each in flavor.compute_capabilities if _numbers(each) >= _numbers(least)]
            fix = f"name GPUs that have it with `compute_capability`: {', '.join(named)}"
            newer = "" if options.compute_capabilities else " and newer"
            raise UsageError(
                f"not every GPU that the engine is for has what {asked} needs",
                got=f"compute capability {', '.join(lacking)}{newer}",
                expected=f"{least} or newer",
                fix=fix if named else "leave out `hardware_compatibility`, and build it on the GPU that it is for",
            )
    floats = [each for each in options.compute_capabilities if each in flavor.without_int8]
    if floats and config.precision == "int8":
        # Listed beside others, it makes the plan multiply in FP16 on all of them.
        raise UsageError(
            f"{flavor.name} does not multiply in INT8 on such GPUs: its plans dequantise on every run",
            got=f"INT8 for compute capability {', '.join(floats)}",
            expected=", ".join(each for each in flavor.compute_capabilities if each not in flavor.without_int8),
            fix='leave it out, and build another engine with `precision="fp16"` for them',
        )


def _needs(config: BuildConfig, options: TensorRTConfig) -> list[tuple[str, str]]:
    """Returns what is asked for that not every GPU has, each with the oldest compute capability that has it."""
    asked: dict[str, str] = {
        f'`precision="{config.precision}"`': config.precision,
        f'`base="{options.base}"`': options.base,
    }
    if options.tf32:
        asked["`tf32`"] = "tf32"
    return [(option, LEAST_GPU[kind]) for option, kind in asked.items() if kind in LEAST_GPU]


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(number) for number in capability.split("."))
