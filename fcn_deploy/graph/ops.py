"""One vocabulary of ONNX operators, for every room that asks what a node does."""

from __future__ import annotations

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
QDQ = (QUANTIZE, DEQUANTIZE)

# Layers: they multiply with weights.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")

# What these give holds values of their first input and no others: it needs no range and no rounding of its own.
SELECTING = frozenset(
    {"MaxPool", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Gather"}
)
