"""OpenVINO as a Backend."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, OPENVINO_KEY
from fcn_deploy.errors import ArtifactError, UsageError
from fcn_deploy.files import StrPath, as_path, read_bytes
from fcn_deploy.runtime.backend import Array, Closable, backend_closed, check_feeds
from fcn_deploy.runtime.cores import CORES
from fcn_deploy.runtime.openvino import library
from fcn_deploy.runtime.options import check_threads
from fcn_deploy.runtime.requirements import no_bf16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExecutedNode:
    """A node of the graph that OpenVINO runs, which may do the work of several layers.

    Attributes:
        layers: Names of the nodes of the model that it was made of.
        kind: What it does, such as `Convolution`.
        precision: What it computes in, by OpenVINO's name: `f32`, `bf16`, `u8`, `i8`.
        microseconds: What it took, the mean of all runs so far, rounded down; None if it has not run, or if the backend
            does not profile.
    """

    layers: tuple[str, ...]
    kind: str
    precision: str
    microseconds: int | None = None


class OpenVinoBackend(Closable):
    """A Backend that runs an ONNX model in OpenVINO.

    It computes in float32 and the integers of the graph's Q/DQ; in bfloat16 only an engine that was built for it. The
    library is told so, because by itself it would choose bfloat16 on every CPU that has it.

    Args:
        model: A file, or the bytes of a model.
        threads: CPU threads of one inference; one for each core if None. Inferences that together would take more
            threads than there are cores wait for each other, also those of other backends in this process.
        device_name: `CPU`, `GPU` or `NPU`, or `GPU.1` of several; the CPU if None. There is no fallback.
        profile: Whether OpenVINO measures the time of each node, which costs a little; `executed` returns it.

    Attributes:
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        metadata: The model's `metadata_props`.

    Raises:
        ArtifactError: OpenVINO cannot load the model; it was built for another library, or it needs bfloat16 and this
            CPU, or the device, has none.
        DependencyError: OpenVINO is not installed, or does not find the device.
        InputError: The file cannot be read.
        UsageError: `threads` or `device_name` has a bad value, or `threads` is set for another device than the CPU.
    """

    name: str = library.NAME

    def __init__(
        self,
        model: StrPath | bytes,
        *,
        threads: int | None = None,
        device_name: str | None = None,
        profile: bool = False,
    ) -> None:
        check_threads(threads)
        library.check_device_name(device_name)
        device = device_name or library.CPU
        on_cpu = device == library.CPU
        if threads is not None and not on_cpu:
            raise UsageError("`threads` are of the CPU", got=f'`device_name="{device}"`', fix="leave one of them out")
        library.load()
        library.check_device(device)
        what = "the model" if isinstance(model, bytes) else os.fspath(model)
        read = _read(model, what)
        self.metadata: Mapping[str, str] = _metadata(read)
        base = _base(self.metadata, what, device)
        self._cores = (threads or CORES.count) if on_cpu else 0
        self._compiled: Any = _compile(read, what, device, _properties(base, self._cores, profile))
        # Each call in progress has its own; what one of them holds is memory for inputs, outputs and activations.
        self._idle: list[Any] = []
        self.inputs: tuple[TensorSpec, ...] = tuple(map(_tensor_spec, self._compiled.inputs))
        self.outputs: tuple[TensorSpec, ...] = tuple(map(_tensor_spec, self._compiled.outputs))

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph once; see `Backend.infer`."""
        compiled = self._require_open()
        check_feeds(self.inputs, feeds)
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            with CORES.lend(self._cores):
                request = self._request_of(compiled)
                found = request.infer(contiguous, share_inputs=True)
                results = {spec.name: found[spec.name] for spec in self.outputs}
        except Exception as error:  # OpenVINO raises RuntimeError for everything, pybind other types as well
            _log.debug("OpenVINO: %s", error)
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in contiguous.items())
            raise ArtifactError(f"OpenVINO cannot run the model on {shapes}", got=_reason(error)) from error
        self._idle.append(request)
        if self._compiled is None:  # closed meanwhile
            self._idle.clear()
        return results

    def executed(self) -> tuple[ExecutedNode, ...]:
        """Returns the nodes that OpenVINO made of the graph, in the order in which they run.

        Raises:
            ClosedError: The backend is closed.
        """
        nodes = self._require_open().get_runtime_model().get_ordered_ops()
        return tuple(_executed(node.get_rt_info()) for node in nodes)

    def close(self) -> None:
        """Frees the compiled model as soon as the calls that run now have ended."""
        self._compiled = None
        self._idle.clear()

    def _request_of(self, compiled: Any) -> Any:
        try:
            return self._idle.pop()
        except IndexError:  # all are in use
            return compiled.create_infer_request()

    def _require_open(self) -> Any:
        compiled = self._compiled
        if compiled is None:
            raise backend_closed()
        return compiled


def _read(model: StrPath | bytes, what: str) -> Any:
    problem = f"OpenVINO {library.version()} cannot load {what}"
    reader = library.onnx_reader()
    # Not by its path, which OpenVINO takes only if it is UTF-8.
    content = io.BytesIO(model if isinstance(model, bytes) else read_bytes(as_path(model)))
    try:
        read = reader.convert(reader.load(content))
    except Exception as error:
        _log.debug("OpenVINO: %s", error)
        raise ArtifactError(problem, got=_reason(error)) from error
    if not read.inputs:  # what it makes of an empty file, and of other protobuf messages
        raise ArtifactError(problem, got="a file that holds no ONNX graph")
    return read


def _compile(model: Any, what: str, device: str, properties: Mapping[str, object]) -> Any:
    try:
        return library.core().compile_model(model, device, dict(properties))
    except Exception as error:
        _log.debug("OpenVINO: %s", error)
        problem = f"OpenVINO {library.version()} cannot compile {what} for the {device}"
        raise ArtifactError(problem, got=_reason(error)) from error


def _metadata(model: Any) -> dict[str, str]:
    """Returns the metadata of an ONNX file, which OpenVINO keeps as information about the framework."""
    if not model.has_rt_info(["framework"]):
        return {}
    return {str(key): str(value) for key, value in model.get_rt_info(["framework"]).value.items()}


def _base(metadata: Mapping[str, str], what: str, device: str) -> str:
    """Returns the precision of what is not quantised, by OpenVINO's name, if this backend may run the model here."""
    if ENGINE_KEY in metadata and OPENVINO_KEY not in metadata:
        raise ArtifactError(
            f"{what} was built for another library",
            got="an engine for ONNX Runtime",
            expected="an engine for OpenVINO, or an exported model",
            fix='build it with `backend="openvino"`',
        )
    if metadata.get(OPENVINO_KEY) != "bf16":
        return "f32"
    if device != library.CPU:
        raise ArtifactError(f"{what} computes in BF16, on CPUs only", got=f'`device_name="{device}"`')
    if not library.has_bf16():
        raise no_bf16(what)
    return "bf16"


def _properties(base: str, cores: int, profile: bool) -> dict[str, object]:
    properties: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": base}
    if profile:
        properties["PERF_COUNT"] = True
    if cores:
        # Threads that are pinned to the first cores would meet those of every other process that pins its own.
        properties |= {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": cores, "ENABLE_CPU_PINNING": False}
    return properties


def _tensor_spec(port: Any) -> TensorSpec:
    shape = tuple("?" if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), port.get_element_type().to_dtype().name, shape)


def _executed(facts: Mapping[str, Any]) -> ExecutedNode:
    told = {key: str(facts[key].value) if key in facts else "" for key in _FACTS}
    names, kind, precision, microseconds = (told[key] for key in _FACTS)
    return ExecutedNode(
        tuple(filter(None, names.split(","))),
        kind,
        precision,
        int(microseconds) if microseconds.isdecimal() else None,  # else `not_executed`
    )


_FACTS = ("originalLayersNames", "layerType", "runtimePrecision", "execTimeMcs")


def _reason(error: Exception) -> str:
    """Returns the last sentence of a message: the cause, after lines that name the places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if " " in line and not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or [type(error).__name__])[-1]
