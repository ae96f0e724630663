"""What engines make of a graph that brings its own Q/DQ: it is built as it is, so what came of it can only be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir

from fcn_deploy.artifacts.precision import PREQUANTIZED, Precision
from fcn_deploy.errors import InputError, PrecisionError
from fcn_deploy.graph.layers import list_layers
from fcn_deploy.quantization.prequantized import integer_weights

# What ONNX Runtime's optimiser adds to the name of weights that it stores without a sign.
_RENAMED = ("", "_s8_2_u8")

# How the precision of a layer with Q/DQ is called: int8, int16, float8e4m3fn.
_QUANTIZED = ("int", "float")


def given_precision(model: ir.Model, base: str) -> Precision:
    """Returns what a graph's Q/DQ ask for: INT8 for each layer that reads its data and its weights by way of it.

    Args:
        model: With Q/DQ, typed as the engine is to be.
        base: What the other layers run in.

    Raises:
        InputError: Two layers have the same name.
        PrecisionError: No layer is INT8.
    """
    layers = list_layers(model, None)
    twice = [name for name, count in Counter(layer.name for layer in layers).items() if count > 1]
    if twice:
        raise InputError("layers cannot be told apart", got=f"several called {', '.join(twice)}", expected="names")
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
    """Looks which layers of a graph with Q/DQ ONNX Runtime runs on integers.

    Args:
        model: The engine's.
        optimized: The nodes that ONNX Runtime makes of it.
        precision: What was asked for.

    Returns:
        The precision with what was achieved, and the names of the layers that run in float instead of INT8.

    Raises:
        PrecisionError: All of them do.
    """
    # A fused node keeps nothing of a layer for certain but its integers.
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
        fix="let the tool quantise what convolutions give as well, in uint8 with a zero point of 0 behind a ReLU; or "
        "build for TensorRT, or calibrate the float model",
    )
    return known, in_float


def require_int8(precision: Precision, library: str, fix: str) -> None:
    """Checks that an engine of a graph with Q/DQ has something of INT8.

    Raises:
        PrecisionError: It is known of every layer that was to be INT8 that it is not.
    """
    found: Mapping[str, str | None] = precision.achieved_layers or {}
    kinds = {name: found.get(name) for name, asked in precision.layers.items() if asked == "int8"}
    if all(kind not in ("int8", None) for kind in kinds.values()):
        raise PrecisionError(
            f"{library} runs no layer of the graph in INT8",
            got=", ".join(f"{name} in {kind}" for name, kind in kinds.items()),
            expected="INT8 for at least one of them",
            fix=fix,
        )


def _is_integer(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("QLinear") or node.op_type in ("QGemm", "MatMulInteger", "MatMulIntegerToFloat")
