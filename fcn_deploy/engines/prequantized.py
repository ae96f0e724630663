"""Engines of prequantized models, which bring Q/DQ: their scales are kept, and what came of each layer is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir

from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.required_int8 import require_int8
from fcn_deploy.errors import InputError, PrecisionError, UsageError
from fcn_deploy.graph.layers import list_layers
from fcn_deploy.quantization.prequantized import integer_weights, is_prequantized, only_float8

# What ONNX Runtime's optimiser adds to the name of weights that it stores as uint8.
_RENAMED = ("", "_s8_2_u8")

# What the precision of a layer with Q/DQ begins with: int8, int16, float8e4m3fn.
_QUANTIZED = ("int", "float")


def check_scales(model: ir.Model, config: BuildConfig, ranges: Ranges | None) -> bool:
    """Checks that an INT8 or FP8 engine gets its scales from exactly one source: ranges, or the model's own Q/DQ.

    Args:
        model: As exported, or with Q/DQ.
        config: What is to be built of it.
        ranges: What calibration saw, or None.

    Returns:
        Whether the model is prequantized.

    Raises:
        InputError: The model is quantised by integer operators, or to FP8 alone.
        UsageError: INT8 or FP8 of a float model without ranges; of a prequantized model another precision than INT8, or
            ranges for it.
    """
    prequantized = is_prequantized(model)
    if prequantized:
        _refuse_fp8(model)
    if prequantized and config.precision != "int8":
        raise UsageError(
            "the graph is INT8 already: it holds Q/DQ",
            got=f'`precision="{config.precision}"`',
            fix='build it with `precision="int8"`, or build the float model it was made from',
        )
    if prequantized and ranges is not None:
        raise UsageError(
            "the graph brings its own scales",
            got="`ranges`",
            fix="leave them out, or quantise the float model by them",
        )
    if config.quantized and not prequantized and ranges is None:
        raise UsageError(f"{config.precision.upper()} needs ranges", fix="name calibration images or a ranges file")
    return prequantized


def _refuse_fp8(model: ir.Model) -> None:
    """Refuses the FP8 of other tools, which no builder here takes over."""
    found = only_float8(model)
    if found:
        raise InputError(
            "the graph is FP8 already, of another tool: only INT8 is taken over from one",
            got=f"Q/DQ of {', '.join(found)}",
            expected="a float model, or Q/DQ of INT8",
            fix='build the float model it was made from with `precision="fp8"`',
        )


def prequantized_precision(model: ir.Model, base: str) -> Precision:
    """Returns what the Q/DQ of a graph ask for: INT8 for each layer whose data and weights are both dequantised.

    Args:
        model: With Q/DQ, and with the types that the engine will have.
        base: What the other layers run in.

    Raises:
        InputError: Two layers have the same name.
        PrecisionError: No layer is INT8.
    """
    layers = list_layers(model, None)
    twice = [name for name, count in Counter(layer.name for layer in layers).items() if count > 1]
    if twice:
        raise InputError(
            "layers cannot be told apart", got=f"several called {', '.join(twice)}", expected="a name for each"
        )
    precisions = {layer.name: layer.precision for layer in layers}
    if "int8" not in precisions.values():
        raise PrecisionError(
            "no layer of the graph is INT8",
            got=", ".join(sorted(set(precisions.values()))) or "no layers with weights",
            expected="layers that read both data and weights by DequantizeLinear, from integers of 8 bits",
            fix="let the tool quantise activations and weights to 8 bits, or calibrate the float model",
        )
    return Precision("int8", base, PREQUANTIZED, precisions)


def achieved_by_onnxruntime(
    model: ir.Model, optimized: Sequence[onnx.NodeProto], precision: Precision
) -> tuple[Precision, list[str]]:
    """Finds which layers of a graph with Q/DQ ONNX Runtime runs on integers.

    Args:
        model: The engine's.
        optimized: The nodes that ONNX Runtime makes of it.
        precision: What was asked for.

    Returns:
        The precision with what was achieved, and the names of the layers that run in float instead of INT8.

    Raises:
        PrecisionError: Every layer runs in float.
    """
    # A fused node has neither the layer's name nor its output's for certain, but it reads the layer's integers.
    read = {name for node in optimized if _is_integer(node) for name in node.input}
    found = {
        name
        for name, weights in integer_weights(model.graph).items()
        if any(f"{weights.name}{suffix}" in read for suffix in _RENAMED)
    }
    achieved = {
        name: "fp32" if asked.startswith(_QUANTIZED) and name not in found else asked
        for name, asked in precision.layers.items()
    }
    in_float = [name for name, asked in precision.layers.items() if asked != achieved[name]]
    known = replace(precision, achieved="mixed" if in_float else "int8", achieved_layers=achieved)
    require_int8(
        known,
        "ONNX Runtime",
        fix="let the tool also quantise the outputs of convolutions, after a ReLU in uint8 with a zero point of 0; or "
        "build for TensorRT, or calibrate the float model",
    )
    return known, in_float


def _is_integer(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("QLinear") or node.op_type in ("QGemm", "MatMulInteger", "MatMulIntegerToFloat")
