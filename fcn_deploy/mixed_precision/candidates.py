"""Candidates: the graphs of one net with different layers in INT8, whose logits a CPU can compute."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import OPENVINO_KEY
from fcn_deploy.engines.config import Base, BuildConfig
from fcn_deploy.engines.onnxruntime import onnxruntime_graph
from fcn_deploy.engines.openvino import openvino_simulation
from fcn_deploy.engines.simulation import simulation_graph
from fcn_deploy.engines.tensorrt.typed_graph import typed_graph
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.model import ExportedModel, parse, serialize
from fcn_deploy.quantization.balance import balance
from fcn_deploy.quantization.selection import int8_layers, quantizable_layers
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS, Flavor

Target = Literal["onnxruntime", "openvino", "tensorrt"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one net: each has its own choice of INT8 layers.

    Attributes:
        model: As `export` writes it.
        ranges: What calibration saw.
        config: How to quantise: method, target CPU, bias correction, rounding, and as `int8_layers` the layers to start
            from. Its precision, input and output, and Winograd layers are ignored.
        target: `onnxruntime`; or `openvino` or `tensorrt`, whose graphs are simulated in float.
        base: What a graph for TensorRT computes in where it is not quantised; for OpenVINO, whether its layers
            are timed in BF16 where they are not quantised, or else in FP32. ONNX Runtime has FP32 alone.
        flavor: Which TensorRT library a graph for TensorRT is for.
        layers: Every layer that can be quantised, in graph order.
        start: The layers that are INT8 in the first candidate, in graph order.

    Raises:
        InputError: No layer of the model can be quantised, a layer to start from cannot, or the ranges belong to
            another model.
        UsageError: The target is unknown.
    """

    model: ExportedModel
    ranges: Ranges
    config: BuildConfig
    target: Target = "onnxruntime"
    base: Base = "fp16"
    flavor: Flavor = FLAVORS["tensorrt"]
    layers: tuple[str, ...] = field(init=False)
    start: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError("unknown target", got=repr(self.target), expected=" or ".join(TARGETS))
        self.ranges.require_model(self.model.sha256)
        transposed = self.target != "tensorrt"
        layers = tuple(quantizable_layers(self.model.graph, transposed=transposed))
        if not layers:
            raise InputError(
                "the net has no layer that can be quantised", expected="convolutions with constant weights"
            )
        object.__setattr__(self, "layers", layers)
        object.__setattr__(
            self, "start", tuple(int8_layers(self.model.graph, self.config.int8_layers, transposed=transposed))
        )

    def make(self, int8: Collection[str]) -> bytes:
        """Makes a candidate.

        Args:
            int8: Names of its INT8 layers; empty for the net without INT8.

        Returns:
            The content of an ONNX file that takes `image` and gives `logits`, both float32, in ONNX Runtime.

        Raises:
            InputError: A layer cannot be quantised, or a tensor has no range.
        """
        # The net without INT8 is balanced too: so it shares with candidates what precedes their first INT8 layer.
        model, ranges = (self.model, self.ranges) if int8 else (_balanced(self.model, self.ranges), None)
        if self.target == "onnxruntime":
            # Without Winograd's algorithm: layers are compared one by one, so each has to be one node.
            config = replace(self._config("fp32", int8), winograd=())
            return onnxruntime_graph(model, config, ranges)[0]
        if self.target == "openvino":
            return openvino_simulation(model, self._config("fp32", int8), ranges)
        config = self._config(self.base, int8)
        return simulation_graph(typed_graph(self.model, config, self.ranges, self.base, flavor=self.flavor))

    def make_timed(self, int8: Collection[str]) -> bytes:
        """Makes a candidate for the library of the target itself, to be timed there.

        Args:
            int8: As for `make`.

        Returns:
            The content of an ONNX file with the layers of the engine, that takes `image` and gives `logits`.

        Raises:
            InputError: A layer cannot be quantised, or a tensor has no range.
            UsageError: The target is TensorRT, whose kernels a CPU does not have.
        """
        if self.target == "tensorrt":
            raise UsageError("TensorRT's layers cannot be timed on a CPU", expected="onnxruntime or openvino")
        data = self.make(int8)
        if self.target == "onnxruntime":
            return data
        graph = parse(data)
        # It is OpenVINO's own graph, which was said to be for ONNX Runtime; this says it is OpenVINO's, and in what.
        graph.metadata_props[OPENVINO_KEY] = "bf16" if self.base == "bf16" else "fp32"
        return serialize(graph)

    def _config(self, floats: Base, int8: Collection[str]) -> BuildConfig:
        if not int8:
            return replace(self.config.as_float(floats), io="tensor", winograd=None)
        return replace(self.config, precision="int8", io="tensor", winograd=None, int8_layers=tuple(int8))


def _balanced(model: ExportedModel, ranges: Ranges) -> ExportedModel:
    """Returns the net that ranges were observed on."""
    if not ranges.scales:
        return model
    graph_model = model.copy()
    balance(graph_model.graph, ranges.scales)
    return ExportedModel.parse(serialize(graph_model))
