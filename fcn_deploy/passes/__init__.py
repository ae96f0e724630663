"""ONNX to ONNX rewrites, one a file, and the ordered pipeline of each target."""
