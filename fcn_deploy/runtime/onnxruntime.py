"""ONNX Runtime as a Backend."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, SIMULATED
from fcn_deploy.errors import ArtifactError, ClosedError, DependencyError, UsageError
from fcn_deploy.runtime.backend import Array, Provider, check_feeds
from fcn_deploy.runtime.cores import CORES
from fcn_deploy.runtime.cpu import has_vnni

try:
    import onnxruntime as ort
except ImportError as error:
    raise DependencyError(
        "ONNX Runtime is not installed",
        fix="pip install 'fcn-deploy[cpu]', or 'fcn-deploy[gpu]' on a machine with an NVIDIA GPU",
    ) from error

_log = logging.getLogger(__name__)

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Makes weights uint8 that use all 8 bits, for on x86 without VNNI their products saturate. No engine built for such
# CPUs has any; a model that brings its own Q/DQ may, and can be run too, as a reference. Where there is VNNI it would
# cost for nothing: the kernels for uint8 weights take 2.5 times as long there (FCN-8s at 360x480).
_PRECISE = ("session.x64quantprecision", "1")
_SIMULATION = ("session.disable_quant_qdq", "1")
# Threads of a pool go on looking for work for a while; a session that runs next would have to share the cores with
# them, which took 1.4 times as long on two cores. They stop as soon as a run ends, at no cost to the next.
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


class OnnxRuntimeBackend:
    """A session of ONNX Runtime.

    Args:
        model: A file, or the bytes of a model.
        threads: CPU threads of one inference; as many as there are cores where None. Inferences that together would
            take more threads than there are cores wait for each other, those of other sessions included.
        provider: `cpu` or `cuda`; what cannot be had is an error, never another provider.
        device: Index of the GPU, for `cuda`.
        simulate_quantization: Computes Q/DQ graphs in float instead of fusing them into integer kernels.
        optimized_path: Where to write the graph as ONNX Runtime has optimised it.
        profile_prefix: How the file begins that `end_profiling` names; nothing is profiled where None.

    Raises:
        ArtifactError: ONNX Runtime cannot load the model, or would not run its convolutions as it was built for.
        DependencyError: The installed ONNX Runtime has no such provider, or the provider did not start.
        UsageError: `threads` or `device` does not fit.
    """

    name = "onnxruntime"
    version: str = ort.__version__

    def __init__(
        self,
        model: Path | bytes,
        *,
        threads: int | None = None,
        provider: Provider = "cpu",
        device: int | None = None,
        simulate_quantization: bool = False,
        optimized_path: Path | None = None,
        profile_prefix: Path | None = None,
    ) -> None:
        options = _session_options(threads, simulate_quantization, optimized_path)
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_prefix)
        providers = _providers(provider, device)
        if provider == "cuda":
            _preload()
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        what = "the model" if isinstance(model, bytes) else str(model)
        session = _open(model, what, options, providers)
        if session.get_providers()[0] != _PROVIDERS[provider]:
            raise DependencyError(
                f"ONNX Runtime did not start its {provider} provider",
                got=f"a session on {session.get_providers()[0]}",
                fix="check the driver, CUDA and cuDNN that onnxruntime-gpu asks for",
            )
        kind = session.get_modelmeta().custom_metadata_map.get(ENGINE_KEY, "")
        if kind.endswith(SIMULATED) and not simulate_quantization:
            # It says so itself, but only once it is loaded; fused, its Q/DQ would be another net.
            options.add_session_config_entry(*_SIMULATION)
            session = _open(model, what, options, providers)
        session.disable_fallback()
        if provider == "cuda":
            _check_placement(what, session)
        self._session: Any = session
        self._cores = 0 if provider == "cuda" else threads or CORES.count
        self._inputs = tuple(_tensor_spec(tensor) for tensor in session.get_inputs())
        self._outputs = tuple(_tensor_spec(tensor) for tensor in session.get_outputs())
        self._output_names = [spec.name for spec in self._outputs]
        self._metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs."""
        return self._outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's `metadata_props`."""
        return self._metadata

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the session once.

        Args:
            feeds: One array for each input, of its dtype and shape.

        Returns:
            One array for each output.

        Raises:
            ArtifactError: ONNX Runtime fails on it.
            ClosedError: The backend has been closed.
            InputError: An input is missing, unknown, or of another dtype or shape.
        """
        session = self._session
        if session is None:
            raise ClosedError("this backend is closed", fix="open the engine again")
        check_feeds(self._inputs, feeds)
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            with CORES.lend(self._cores):
                results = session.run(self._output_names, contiguous)
        except Exception as error:  # as many unrelated types as above
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in contiguous.items())
            raise ArtifactError(f"ONNX Runtime cannot run the model on {shapes}", got=_first_line(error)) from error
        return dict(zip(self._output_names, results, strict=True))

    def end_profiling(self) -> Path:
        """Stops the profiler, and returns the file it has written: JSON, one event for each time a node ran.

        Raises:
            ClosedError: The backend has been closed.
        """
        if self._session is None:
            raise ClosedError("this backend is closed", fix="open the engine again")
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """Frees the session once the calls under way have ended."""
        self._session = None


def _open(model: Path | bytes, what: str, options: Any, providers: Any) -> Any:
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=providers)
    except Exception as error:
        # ONNX Runtime raises a dozen unrelated exception types here; each means that it will not run this.
        raise ArtifactError(f"ONNX Runtime {ort.__version__} cannot load {what}", got=_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _session_options(threads: int | None, simulate: bool, optimized_path: Path | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not has_vnni():
        options.add_session_config_entry(*_PRECISE)
    options.add_session_config_entry(*_NO_IDLING)
    if threads is not None:
        if threads < 1:
            raise UsageError("bad number of threads", got=threads, expected="1 or more")
        options.intra_op_num_threads = threads
    if simulate:
        options.add_session_config_entry(*_SIMULATION)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    return options


def _providers(provider: Provider, device: int | None) -> list[Any]:
    if provider not in _PROVIDERS:
        raise UsageError("unknown provider", got=repr(provider), expected=" or ".join(_PROVIDERS))
    if provider == "cpu" and device is not None:
        raise UsageError("device is the index of a GPU", got=f"device={device} with provider cpu")
    name = _PROVIDERS[provider]
    if name not in ort.get_available_providers():
        raise DependencyError(
            f"the installed ONNX Runtime has no {provider} provider",
            got=", ".join(ort.get_available_providers()),
            fix="pip uninstall onnxruntime, then pip install 'fcn-deploy[gpu]'",
        )
    return [(name, {"device_id": str(device or 0)})] if provider == "cuda" else [name]


def _preload() -> None:
    """Loads the CUDA libraries that lie in wheels beside ONNX Runtime, which does not look for them there by itself."""
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        said = io.StringIO()
        with redirect_stdout(said):  # it prints what it does not find, and stdout is for results
            preload()
        _log.debug("onnxruntime.preload_dlls: %s", said.getvalue().strip() or "done")


def _check_placement(what: str, session: Any) -> None:
    """Refuses engines whose convolutions the CUDA provider would compute in float, or leave to the CPU."""
    kind = session.get_modelmeta().custom_metadata_map.get(ENGINE_KEY, "")
    if kind.startswith("int8"):
        raise ArtifactError(
            f"{what} is an INT8 engine for CPUs, whose layers the CUDA provider would compute in float",
            got="provider cuda",
            fix="run it with provider cpu, or build another: --fp32 for this provider, --backend tensorrt for INT8",
        )
    try:
        groups = session.get_provider_graph_assignment_info()
    except Exception as error:  # before 1.24 there is no such method, and what it raises has no class of its own
        _log.debug("ONNX Runtime does not tell where nodes run: %s", error)
        return
    on_cpu = {node.op_type for group in groups if group.ep_name == _PROVIDERS["cpu"] for node in group.get_nodes()}
    if on_cpu & _CONVOLUTIONS:
        raise ArtifactError(
            f"ONNX Runtime would run convolutions of {what} on the CPU",
            got=", ".join(sorted(on_cpu)),
            expected="convolutions on the GPU",
            fix="run it with provider cpu",
        )
    if on_cpu:
        _log.info("ONNX Runtime runs on the CPU what it has no CUDA kernels for: %s", ", ".join(sorted(on_cpu)))


def _tensor_spec(tensor: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int | str) else "?" for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES.get(tensor.type, tensor.type), shape)
