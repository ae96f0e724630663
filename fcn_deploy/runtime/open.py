"""Opens an engine with the library its suffix stands for."""

from __future__ import annotations

from pathlib import Path

from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.runtime.backend import PLAN_SUFFIXES, Backend, Provider


def open_backend(
    engine: Path,
    *,
    threads: int | None = None,
    provider: Provider | None = None,
    device: int | None = None,
    flavor: str | None = None,
    allow_host_code: bool = False,
) -> Backend:
    """Opens an engine with the library its suffix stands for.

    Args:
        engine: An `.onnx` file, or a plan: `.engine` or `.plan`.
        threads: CPU threads of one inference; the library's default where None. Refused for plans.
        provider: What ONNX Runtime runs on, the CPU where None. There is no fallback: what cannot be had is an error.
            Refused for plans.
        device: Index of the GPU; 0 where None.
        flavor: The TensorRT library that runs a plan; where None the one that its sidecar names. Refused for ONNX.
        allow_host_code: Lets a plan run code on the host. Refused for ONNX.

    Raises:
        ArtifactError: Engine, sidecar, library and machine do not fit together, nothing says which library built the
            plan, or the file is corrupt.
        DependencyError: The library, the provider, a driver or the GPU is not there.
        InputError: The file does not exist, or is neither an engine nor a model.
        UsageError: An option does not go with this engine.
    """
    if not engine.is_file():
        raise InputError(f"cannot open {engine}", got="no such file")
    if engine.suffix in PLAN_SUFFIXES:
        if threads is not None or provider is not None:
            raise UsageError(
                "threads and providers are for ONNX engines; a plan runs on the GPU",
                got=f"threads={threads}, provider={provider}, for {engine}",
                fix="leave them out",
            )
        from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend

        return TensorRTBackend(engine, device=device, flavor=flavor, allow_host_code=allow_host_code)
    if engine.suffix != ".onnx":
        raise InputError(
            f"{engine} is neither an engine nor an exported model",
            expected="a name that ends in .onnx, .engine or .plan",
            fix="for a checkpoint, write pytorch: before its path",
        )
    if allow_host_code or flavor is not None:
        option = "allow_host_code" if allow_host_code else "flavor"
        raise UsageError(f"{option} is for TensorRT plans", got=f"{engine}, an ONNX model")
    from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(engine, threads=threads, provider=provider or "cpu", device=device)
