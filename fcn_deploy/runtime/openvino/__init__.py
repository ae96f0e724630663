"""OpenVINO: the library, and a Backend that runs ONNX files in it."""
