"""Opens an engine with the library that it was built for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.sidecar import load_sidecar
from fcn_deploy.errors import FcnDeployError, InputError, UsageError
from fcn_deploy.files import StrPath, as_path, check_file
from fcn_deploy.runtime.backend import Backend
from fcn_deploy.runtime.options import Kind, RuntimeOptions, kind_of

if TYPE_CHECKING:
    from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
    from fcn_deploy.runtime.openvino.backend import OpenVinoBackend

_DEFAULTS = RuntimeOptions()


def check_engine_path(path: Path) -> Kind:
    """Returns the kind of an engine or model, before any library is imported for it.

    Raises:
        InputError: The file does not exist, or its name is neither that of an engine nor that of a model.
    """
    check_file(path, pipe=False)
    kind = kind_of(path)
    if kind != "plan" and path.suffix != ".onnx":
        raise InputError(
            f"{path} is neither an engine nor an exported model",
            expected="a name that ends in .onnx, .engine or .plan",
            fix="for a checkpoint, write pytorch: before its path",
        )
    return kind


def open_backend(engine: StrPath, options: RuntimeOptions = _DEFAULTS, *, flavor: str | None = None) -> Backend:
    """Opens an engine with the library that it was built for.

    Args:
        engine: An `.onnx` file, which runs in OpenVINO if its sidecar says so and else in ONNX Runtime; or a plan:
            `.engine` or `.plan`.
        options: How it runs. An option that this kind of file does not take is refused, and so is `tile`: a backend
            runs whole arrays, and only a Segmenter cuts images into tiles.
        flavor: The TensorRT library that runs a plan; if None, the one that its sidecar names. Refused for ONNX.

    Raises:
        ArtifactError: Engine, sidecar, library and machine do not fit together, nothing says which library built the
            plan, or the file is corrupt.
        DependencyError: The library, the provider, a driver or the GPU is missing.
        InputError: The file does not exist, or is neither an engine nor a model.
        UsageError: An option does not go with this engine.
    """
    path = as_path(engine)
    kind = check_engine_path(path)
    options.check_taken([(str(path), kind)])
    for name in ("tile", "color"):
        if name in options.asked:
            got = getattr(options, name)
            raise UsageError(f"`{name}` is for a Segmenter, not for a backend", got=got, fix="leave it out")
    if kind == "plan":
        from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend

        return TensorRTBackend(
            path,
            device=options.device,
            flavor=flavor,
            allow_host_code=options.allow_host_code,
            contexts=options.contexts,
            graphs=options.graphs,
            specialization=options.specialization,
        )
    if flavor is not None:
        raise UsageError("`flavor` is for TensorRT plans", got=str(path), fix="leave it out")
    if kind == "openvino":
        from fcn_deploy.runtime.openvino.backend import OpenVinoBackend

        backend = OpenVinoBackend(path, threads=options.threads, device_name=options.device_name)
        _check_precisions(path, backend)
        return backend
    return open_in_onnxruntime(path, options)


def open_in_onnxruntime(model: StrPath | bytes, options: RuntimeOptions) -> OnnxRuntimeBackend:
    """Opens an ONNX model in ONNX Runtime.

    Args:
        model: A file, or its content.
        options: How it runs; those of other libraries are ignored.

    Raises:
        ArtifactError: ONNX Runtime cannot load the model, or it was built for another library or CPU.
        DependencyError: ONNX Runtime, the provider or the GPU is missing.
        InputError: The file cannot be read.
    """
    from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(
        model,
        threads=options.threads,
        provider=options.provider or "cpu",
        device=options.device,
        fast_math=options.fast_math,
    )


def _check_precisions(path: Path, backend: OpenVinoBackend) -> None:
    from fcn_deploy.runtime.openvino.precisions import check_precisions

    try:
        check_precisions(backend.executed(), load_sidecar(path), path)
    except FcnDeployError:
        backend.close()
        raise
