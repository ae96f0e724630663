"""ONNX to engine: the file that a device runs, and the sidecar that describes it."""
