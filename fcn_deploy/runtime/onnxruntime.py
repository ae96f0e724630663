"""ONNX Runtime as a Backend."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, OPENVINO_KEY, SIMULATED
from fcn_deploy.errors import ArtifactError, DependencyError
from fcn_deploy.files import StrPath
from fcn_deploy.installation import install_command
from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.backend import Array, Closable, Provider, backend_closed, check_feeds
from fcn_deploy.runtime.cores import CORES
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.requirements import require_fast_math

# From 1.32 on ONNX Runtime writes a device id under the home folder and looks up a host. It reads this variable when it
# is imported; `disable_telemetry_events` comes too late. What the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import onnxruntime as ort
except ImportError as error:
    raise DependencyError(
        "ONNX Runtime is not installed",
        fix=f"{install_command('cpu')}, or on a machine with an NVIDIA GPU {install_command('gpu')}",
    ) from error

_log = logging.getLogger(__name__)

# What it has to say comes with its exceptions; what it writes to stderr, in colours, would only stand there twice.
_FATAL = 4
ort.set_default_logger_severity(_FATAL)

_PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Turns int8 weights that use all 8 bits into uint8, because their products saturate on x86 without VNNI. No engine
# built for such CPUs has such weights, but a prequantized model may, and it can run as a reference. With VNNI this
# would be a waste: the kernels for uint8 weights take 2.5 times as long there (FCN-8s at 360x480). On Arm it does
# nothing.
_PRECISE = ("session.x64quantprecision", "1")
_SIMULATION = ("session.disable_quant_qdq", "1")
# Matrices of FP32 are multiplied in BF16, on Arm with BF16 and under Linux. Elsewhere it does nothing and says nothing.
_FAST_MATH = ("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
# The threads of a session go on looking for work for a while after a run. Another session that runs next has to share
# the cores with them, and took 1.4 times as long on two cores. With this they stop as soon as a run ends, and the next
# run of the same session is not slower.
_NO_IDLING = ("session.force_spinning_stop", "1")
_CONVOLUTIONS = {"Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger"}
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeBackend(Closable):
    """A Backend that runs an ONNX model in a session of ONNX Runtime.

    Args:
        model: A file, or the bytes of a model.
        threads: CPU threads of one inference; one for each core if None. Inferences that together would take more
            threads than there are cores wait for each other, also those of other sessions in this process.
        provider: `cpu` or `cuda`. There is no fallback: a provider that cannot be had is an error.
        device: Index of the GPU, for `cuda`; 0 if None.
        fast_math: Multiplies matrices of FP32 in BF16, on a 64-bit Arm CPU that has it, under Linux.
        simulate_quantization: Computes Q/DQ graphs in float instead of fusing them into integer kernels.
        optimized_path: Where to write the graph that ONNX Runtime has optimised.
        profile_prefix: How the path of the profile begins, which `end_profiling` returns. Nothing is profiled if None.
        what: What errors call the model; if None, its file's name, or `the model`.

    Attributes:
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        metadata: The model's `metadata_props`.

    Raises:
        ArtifactError: ONNX Runtime cannot load the model, or would not run its convolutions on the GPU or in INT8.
        DependencyError: The installed ONNX Runtime does not have the provider, or the provider did not start; or the
            machine has no fast math.
        UsageError: `threads`, `provider` or `device` has a bad value, `device` is set for the CPU, or `fast_math` for a
            GPU.
    """

    name: str = "onnxruntime"
    version: str = ort.__version__

    def __init__(
        self,
        model: StrPath | bytes,
        *,
        threads: int | None = None,
        provider: Provider = "cpu",
        device: int | None = None,
        fast_math: bool = False,
        simulate_quantization: bool = False,
        optimized_path: StrPath | None = None,
        profile_prefix: StrPath | None = None,
        what: str | None = None,
    ) -> None:
        what = what or ("the model" if isinstance(model, bytes) else str(model))
        asked = RuntimeOptions(threads=threads, provider=provider, device=device, fast_math=fast_math)
        asked.check_taken([(what, "onnx")])
        options = _session_options(threads, simulate_quantization, optimized_path)
        if fast_math:
            require_fast_math()
            options.add_session_config_entry(*_FAST_MATH)
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = os.fspath(profile_prefix)
        providers = _providers(provider, device)
        if provider == "cuda":
            _preload()
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = _open(model, what, options, providers)
        if session.get_providers()[0] != _PROVIDERS[provider]:
            raise DependencyError(
                f"ONNX Runtime did not start its {provider} provider",
                got=f"a session on {session.get_providers()[0]}",
                fix="check that the driver, CUDA and cuDNN are those that onnxruntime-gpu needs",
            )
        metadata = session.get_modelmeta().custom_metadata_map
        if OPENVINO_KEY in metadata:
            raise ArtifactError(
                f"{what} was built for another library",
                got="an engine for OpenVINO",
                expected="an engine for ONNX Runtime, or an exported model",
                fix='keep its sidecar beside it, which names the library; or build it with `backend="onnxruntime"`',
            )
        if metadata.get(ENGINE_KEY, "").endswith(SIMULATED) and not simulate_quantization:
            # Only a loaded model says that it is a simulation. With fused Q/DQ it would be another net: load it again.
            options.add_session_config_entry(*_SIMULATION)
            session = _open(model, what, options, providers)
        session.disable_fallback()
        if provider == "cuda":
            _check_placement(what, session)
        self._session: Any = session
        self._cores = 0 if provider == "cuda" else threads or CORES.count
        self.inputs: tuple[TensorSpec, ...] = tuple(_tensor_spec(tensor) for tensor in session.get_inputs())
        self.outputs: tuple[TensorSpec, ...] = tuple(_tensor_spec(tensor) for tensor in session.get_outputs())
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self._output_names = [spec.name for spec in self.outputs]

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the session once; see `Backend.infer`."""
        session = self._require_open()
        check_feeds(self.inputs, feeds)
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            with CORES.lend(self._cores):
                results = session.run(self._output_names, contiguous)
        except Exception as error:  # as many unrelated types as in `_open`
            _log.debug("ONNX Runtime: %s", error)
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in contiguous.items())
            raise ArtifactError(f"ONNX Runtime cannot run the model on {shapes}", got=_first_line(error)) from error
        return dict(zip(self._output_names, results, strict=True))

    def end_profiling(self) -> Path:
        """Stops the profiler, and returns the file it has written: JSON, one event for each time a node ran.

        Raises:
            ClosedError: The backend is closed.
        """
        return Path(self._require_open().end_profiling())

    def close(self) -> None:
        """Frees the session as soon as the calls that run now have ended."""
        self._session = None

    def _require_open(self) -> Any:
        session = self._session
        if session is None:
            raise backend_closed()
        return session


def _open(model: StrPath | bytes, what: str, options: Any, providers: list[Any]) -> Any:
    try:
        source = model if isinstance(model, bytes) else os.fspath(model)
        if isinstance(source, str) and not _is_text(source):
            source = Path(source).read_bytes()  # ONNX Runtime opens only files whose names are UTF-8
        return ort.InferenceSession(source, options, providers=providers)
    except Exception as error:
        # ONNX Runtime raises a dozen unrelated exception types here; each means that it does not run this model.
        _log.debug("ONNX Runtime: %s", error)
        raise ArtifactError(f"ONNX Runtime {ort.__version__} cannot load {what}", got=_first_line(error)) from error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a name of other bytes
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _session_options(threads: int | None, simulate: bool, optimized_path: StrPath | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    if not cpu.exact_8_bits():
        options.add_session_config_entry(*_PRECISE)
    options.add_session_config_entry(*_NO_IDLING)
    if threads is not None:
        options.intra_op_num_threads = threads
    if simulate:
        options.add_session_config_entry(*_SIMULATION)
    if optimized_path is not None:
        options.optimized_model_filepath = os.fspath(optimized_path)
    return options


def _providers(provider: Provider, device: int | None) -> list[Any]:
    name = _PROVIDERS[provider]
    if name not in ort.get_available_providers():
        raise DependencyError(
            f"the installed ONNX Runtime has no {provider} provider",
            got=", ".join(ort.get_available_providers()),
            fix=f"pip uninstall onnxruntime, then {install_command('gpu')}",
        )
    return [(name, {"device_id": str(device or 0)})] if provider == "cuda" else [name]


def _preload() -> None:
    """Loads the CUDA libraries that came in wheels, because ONNX Runtime does not look for them there by itself."""
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        said = io.StringIO()
        with redirect_stdout(said):  # it prints what it does not find, but stdout is for results
            preload()
        _log.debug("onnxruntime.preload_dlls: %s", said.getvalue().strip() or "done")


def _check_placement(what: str, session: Any) -> None:
    """Refuses an engine whose convolutions the CUDA provider would compute in float, or leave to the CPU.

    Raises:
        ArtifactError: It is such an engine.
    """
    kind = session.get_modelmeta().custom_metadata_map.get(ENGINE_KEY, "")
    if kind.startswith("int8"):
        raise ArtifactError(
            f"{what} is an INT8 engine for CPUs: the CUDA provider would compute its layers in float",
            got='`provider="cuda"`',
            fix='run it with `provider="cpu"`, or build another: with `precision="fp32"` for this provider, or with '
            '`backend="tensorrt"` for INT8',
        )
    try:
        groups = session.get_provider_graph_assignment_info()
    except Exception as error:  # versions before 1.24 do not have this method, and its errors have no common class
        _log.debug("ONNX Runtime does not say where nodes run: %s", error)
        return
    on_cpu = {node.op_type for group in groups if group.ep_name == _PROVIDERS["cpu"] for node in group.get_nodes()}
    if on_cpu & _CONVOLUTIONS:
        raise ArtifactError(
            f"ONNX Runtime would run convolutions of {what} on the CPU",
            got=", ".join(sorted(on_cpu)),
            expected="convolutions on the GPU",
            fix='run it with `provider="cpu"`',
        )
    if on_cpu:
        _log.info(
            "ONNX Runtime has no CUDA kernels for these operators and runs them on the CPU: %s",
            ", ".join(sorted(on_cpu)),
        )


def _tensor_spec(tensor: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int | str) else "?" for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES.get(tensor.type, tensor.type), shape)
