"""ONNX to engine: the file a device runs and the sidecar that says what it is."""
