"""torch to ONNX, held against PyTorch."""
