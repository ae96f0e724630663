"""ONNX to ONNX: one rewrite a file, and the whole lowering of each target in `pipelines`."""
