"""Mixes: a net of which some layers are INT8, as a graph whose logits a CPU computes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.engines.engine import BuildConfig, check_ranges
from fcn_deploy.engines.onnxruntime import onnxruntime_graph
from fcn_deploy.engines.tensorrt.typed_graph import Base, simulated, typed_graph
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import sha256_bytes
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.quantization.selection import int8_layers, quantizable_layers

Target = Literal["onnxruntime", "tensorrt"]
TARGETS: tuple[Target, ...] = ("onnxruntime", "tensorrt")


@dataclass(frozen=True, eq=False)
class Mixer:
    """Makes mixes of one net.

    Attributes:
        model: Content of an ONNX file as `export` writes it.
        ranges: What calibration saw.
        config: How to quantise: method, target CPU and, as `int8_layers`, where to start. Precision and input and
            output are this class's own business.
        target: `onnxruntime`, or `tensorrt`, whose graphs are simulated in float.
        base: What a graph for TensorRT computes in where it is not quantised.
        layers: Every layer that can be quantised, in graph order.
        start: Those that are, unless asked otherwise.
        spec: The net's.

    Raises:
        InputError: The model is not an exported net, has nothing to quantise, or the ranges are not its.
        UsageError: There is no such target.
    """

    model: bytes
    ranges: Ranges
    config: BuildConfig
    target: Target = "onnxruntime"
    base: Base = "fp16"
    layers: tuple[str, ...] = field(init=False)
    start: tuple[str, ...] = field(init=False)
    spec: ModelSpec = field(init=False)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError("unknown target", got=repr(self.target), expected=" or ".join(TARGETS))
        check_ranges(self.ranges, sha256_bytes(self.model))
        model = parse(self.model)
        layers = tuple(quantizable_layers(model.graph))
        if not layers:
            raise InputError(
                "the net has no layer that can be quantised", expected="convolutions with constant weights"
            )
        object.__setattr__(self, "spec", exported_spec(model))
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "start", tuple(int8_layers(model.graph, self.config.int8_layers)))

    def make(self, int8: Collection[str]) -> bytes:
        """Returns the content of an ONNX file that gives a mix's logits in ONNX Runtime.

        Args:
            int8: Names of the layers to quantise; none of them makes the net without INT8.

        Raises:
            InputError: A layer cannot be quantised, or a tensor has no range.
        """
        if self.target == "onnxruntime":
            return onnxruntime_graph(self.model, self._config("fp32", int8), self.ranges)[0]
        return simulated(typed_graph(self.model, self._config(self.base, int8), self.ranges, self.base))

    def _config(self, floats: Base, int8: Collection[str]) -> BuildConfig:
        # Direct throughout: what is compared layer by layer has to be one node a layer.
        config = replace(self.config, io="tensor", winograd=())
        if not int8:
            return replace(config, precision=floats, int8_layers=None)
        return replace(config, precision="int8", int8_layers=tuple(int8))
