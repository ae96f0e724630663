"""One vocabulary of ONNX operators, for every room that asks what a node does."""

from __future__ import annotations

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
QDQ = (QUANTIZE, DEQUANTIZE)

# Layers: they multiply with weights.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CONVOLUTIONS = ("Conv", "ConvTranspose")

# Their output holds all elements of their first input and nothing else, in another shape or order.
REARRANGING = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"})

# Their output holds values of their first input and nothing else: it needs no range and no rounding of its own.
SELECTING = REARRANGING | {"MaxPool", "Slice", "Gather"}

# They read the shape of their input, not its values.
MEASURING = frozenset({"Shape", "Size"})
