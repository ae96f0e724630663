"""What each builder refuses, before work starts: no library that builds or runs engines is imported for it."""

from __future__ import annotations

from collections.abc import Callable

from fcn_deploy.engines.config import BuildConfig, RequestedBase, refused_winograd
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.openvino import library as openvino
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import Flavor

# The backends that are no flavor of TensorRT, by the names that users give them.
ONNXRUNTIME = "onnxruntime"
OPENVINO = openvino.NAME
SIMULATION = "simulation"


def check_onnxruntime(config: BuildConfig, options: TensorRTConfig | None = None) -> None:
    """Checks what can be checked before work starts.

    Args:
        config: What is to be built.
        options: What was asked of TensorRT's builders; all of it has to be the default.

    Raises:
        UsageError: FP16, which ONNX Runtime's CPU has no kernels for, or an option for TensorRT.
    """
    if config.precision == "fp16":
        raise UsageError(
            "ONNX Runtime's CPU kernels do not compute in FP16",
            got='`precision="fp16"` for onnxruntime',
            expected='`precision="fp32"` or `precision="int8"`',
        )
    if config.precision == "bf16":
        raise refused_bf16(ONNXRUNTIME)
    if options is not None:
        options.require_defaults(ONNXRUNTIME)


def check_openvino(config: BuildConfig, base: RequestedBase | None, options: TensorRTConfig | None = None) -> None:
    """Checks what can be checked before work starts: the options, the library, and whether the CPU has BF16.

    Args:
        config: What is to be built.
        base: What an INT8 engine computes in where it is not quantised, `fp32` or `bf16`; `fp32` if None.
        options: What was asked of TensorRT's builders; all of it has to be the default.

    Raises:
        DependencyError: OpenVINO is not installed; or BF16 is asked for, and this CPU does not have it, so that nothing
            can be measured of the engine.
        UsageError: FP16, which OpenVINO does not compute in on x86 CPUs, or an option that it has no use for.
    """
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


def refused_bf16(backend: str) -> UsageError:
    """Returns the error for an engine in BF16 of a backend that has none."""
    got = f'`precision="bf16"` for {backend}'
    return UsageError(f"{backend} builds no engines in BF16", got=got, expected='`backend="openvino"` for BF16')


def check_simulation(config: BuildConfig, options: TensorRTConfig | None = None) -> None:
    """Checks what can be checked before work starts.

    Args:
        config: What is to be built.
        options: What was asked of TensorRT's builders; all of it has to be the default, but for the base of INT8.

    Raises:
        UsageError: An option that a simulation has no use for.
    """
    if config.precision == "bf16":
        raise refused_bf16(SIMULATION)
    if config.target_cpu != "generic":
        got = f'`target_cpu="{config.target_cpu}"`'
        raise UsageError("a target CPU for a simulation", got=got, fix="leave it out")
    if config.winograd is not None:
        raise refused_winograd(config.winograd, SIMULATION)
    if options is not None:
        options.require_defaults(SIMULATION, ("base",) if config.precision == "int8" else ())


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
        DependencyError: The library is not installed, or this machine lacks the GPU that it needs.
        UsageError: This flavor cannot do what is asked for.
    """
    _check_options(flavor, config, options)
    flavor.check_installed()
    if flavor.builds_without_gpu:
        return options.compute_capabilities
    found = gpus()  # before the library is touched: without a driver it does not always fail cleanly
    return ("8.0",) if options.hardware_compatibility else (found[0].compute_capability,)


def _check_options(flavor: Flavor, config: BuildConfig, options: TensorRTConfig) -> None:
    if config.precision == "bf16":
        raise refused_bf16(flavor.name)
    if not flavor.builds:
        raise UsageError(f"{flavor.name} only runs engines", expected="a backend that builds them")
    asked_and_can = {
        "timing_cache": (options.timing_cache, flavor.timing_cache),
        "hardware_compatibility": (options.hardware_compatibility, flavor.hardware_compatible),
        "version_compatible": (options.version_compatible, flavor.version_compatible),
        "compute_capability": (options.compute_capabilities, flavor.compute_capabilities),
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
    if options.base != "fp16" and config.precision != "int8":
        got = f'`base="{options.base}"` with `precision="{config.precision}"`'
        raise UsageError("only INT8 has another precision as its base", got=got, fix="leave it out")
