"""torch to ONNX, and the proof that the ONNX model gives the same results."""
